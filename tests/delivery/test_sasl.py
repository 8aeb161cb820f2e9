"""Logging in at a next hop: the mechanisms by themselves, and AUTH over real TLS; passwords and where they never go."""

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mailtui.delivery import sasl
from mailtui.delivery.secrets import Credentials, Secrets, SecretsError
from mailtui.model import Outcome, PlannedHost, TlsPolicy
from mailtui.tls.connecting import Contexts
from tests.delivery.conftest import Bench, host, outcomes
from tests.delivery.test_client_tls import serving
from tests.support.certificates import authority
from tests.support.nexthop import NextHop, Script

DELIVERED = (Outcome.DELIVERED, 250, "2.0.0")
USER, PASSWORD = "ann", "s3kr1t pass"
PLAIN = base64.b64encode(b"\0ann\0s3kr1t pass").decode()


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


# -- mechanisms ------------------------------------------------------------------------------------------------------


def test_plain_is_one_message() -> None:
    dialogue = sasl.plain("ann", "pässword")
    assert next(dialogue) == b"\0ann\0" + "pässword".encode()
    with pytest.raises(StopIteration):
        dialogue.send(b"")


def test_login_is_asked_for_user_and_password() -> None:
    dialogue = sasl.login("ann", "pw")
    assert [next(dialogue), dialogue.send(b"Username:"), dialogue.send(b"Password:")] == [None, b"ann", b"pw"]


def test_scram_gives_the_vector_of_rfc_7677() -> None:
    dialogue = sasl.scram_sha_256("user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")
    assert next(dialogue) == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    final = dialogue.send(b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert final == b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert dialogue.send(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == b""


def scram(challenge: bytes, proof: bytes = b"") -> bytes | None:
    dialogue = sasl.scram_sha_256("user", "pencil", nonce="abcdef")
    next(dialogue)
    answer = dialogue.send(challenge)
    return dialogue.send(proof) if proof else answer


@pytest.mark.parametrize(
    "challenge",
    [
        b"", b"r=abcdefX", b"r=abcdef,s=c2FsdA==,i=4096", b"r=other,s=c2FsdA==,i=4096", b"s=c2FsdA==,r=abcdefX,i=4096",
        b"r=abcdefX,s=c2FsdA==,i=-1", b"r=abcdefX,s=c2FsdA==,i=4095", b"r=abcdefX,s=c2FsdA==,i=1000001",
        b"r=abcdefX,s=c2FsdA==,i=99999999999999999999", b"r=abcdefX,s=!,i=4096", b"r=abcdefX,s=c,i=4096",
        b"m=ext,r=abcdefX,s=c2FsdA==,i=4096", b"r=abcdefX,s=c2FsdA==,i=4096\n", b"e=other-error",
    ],
)  # fmt: skip
def test_scram_refuses_a_challenge_that_is_none(challenge: bytes) -> None:
    with pytest.raises(sasl.SaslError) as caught:
        scram(challenge)
    assert "pencil" not in str(caught.value)


@pytest.mark.parametrize("proof", [b"v=AAAA", b"e=invalid-proof", b"v=", b"x"])
def test_scram_wants_the_servers_proof(proof: bytes) -> None:
    with pytest.raises(sasl.SaslError, match="could not prove"):
        scram(b"r=abcdefX,s=c2FsdA==,i=4096", proof)


def test_scram_escapes_the_user() -> None:
    assert next(sasl.scram_sha_256("a=b,c", "x", nonce="n")) == b"n,,n=a=3Db=2Cc,r=n"


def test_every_dialogue_has_a_nonce_of_its_own() -> None:
    assert len({next(sasl.scram_sha_256("ann", "x")) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("pencil", b"pencil"), ("a b", b"a b"), ("I\u00adX", b"IX"), ("\u00aa", b"a"), ("\u2168", b"IX"),
        ("a\u00a0b", b"a b"), ("pässword", "pässword".encode()),
    ],
)  # fmt: skip
def test_names_and_passwords_are_prepared(text: str, octets: bytes) -> None:
    """RFC 4013 section 3 has the examples."""
    assert sasl.prepared(text) == octets


@pytest.mark.parametrize("text", ["a\nb", "\0", "\u0007", "a\u200eb", "\ufffd", "\ue000"])
def test_what_saslprep_forbids_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(sasl.SaslError) as caught:
        sasl.prepared("secret" + text)
    assert "secret" not in str(caught.value)


def test_the_strongest_mechanism_comes_first() -> None:
    assert sasl.usable("LOGIN plain CRAM-MD5 SCRAM-SHA-1 scram-sha-256") == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert sasl.usable("GSSAPI NTLM CRAM-MD5 XOAUTH2") == []
    assert sasl.usable("") == []


# -- the secrets file ------------------------------------------------------------------------------------------------


def secrets(folder: Path, text: str, mode: int = 0o600) -> Secrets:
    file = folder / "secrets"
    file.write_text(text)
    file.chmod(mode)
    return Secrets(str(file))


def test_a_line_is_host_user_password(tmp_path: Path) -> None:
    found = secrets(tmp_path, "# mine\n\nother.test ann x\nmx.test  ann   s3kr1t pass \r\n[192.0.2.1] bob y#z\n")
    assert found.find(["mx.test"], "ann").password == "s3kr1t pass"
    assert found.find(["MX.test"], "ann").password == "s3kr1t pass"
    assert found.find(["192.0.2.1"], "bob").password == "y#z"
    assert found.find(["x.test", "other.test"], "ann") == Credentials("other.test", "ann", "x")


@pytest.mark.parametrize(("name", "user"), [("mx.test", "bob"), ("mx2.test", "ann"), ("mx.test", "Ann")])
def test_a_password_that_is_not_there_says_what_to_add_where(tmp_path: Path, name: str, user: str) -> None:
    with pytest.raises(SecretsError, match=f"add the line '{name} {user} PASSWORD' to .*secrets"):
        secrets(tmp_path, "mx.test ann s3kr1t\n").find([name], user)


def test_without_a_file_it_says_what_to_set() -> None:
    with pytest.raises(SecretsError, match=r"set \[delivery\] secrets to a file with the line 'mx.test ann PASSWORD'"):
        Secrets().find(["mx.test"], "ann")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SecretsError, match=f"mode {mode:04o}.*chmod 0600"):
        secrets(tmp_path, "mx.test ann x\n", mode).find(["mx.test"], "ann")


def test_what_is_wrong_with_the_file_is_said_and_no_password(tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match="No such file"):
        Secrets(str(tmp_path / "none")).find(["mx.test"], "ann")
    with pytest.raises(SecretsError, match="is not a file"):
        Secrets("/dev/null").find(["mx.test"], "ann")
    with pytest.raises(SecretsError, match="line 2 is not 'host user password'") as caught:
        secrets(tmp_path, "mx.test ann x\nmx.test hunter2\n").find(["mx.test"], "ann")
    assert "hunter2" not in str(caught.value)
    broken = secrets(tmp_path, "")
    (tmp_path / "secrets").write_bytes(b"mx.test ann \xff\n")
    with pytest.raises(SecretsError, match="UTF-8"):
        broken.find(["mx.test"], "ann")


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    found = secrets(tmp_path, "mx.test ann one\n")
    assert found.find(["mx.test"], "ann").password == "one"
    new = tmp_path / "new"
    new.write_text("mx.test ann two\n")
    new.chmod(0o600)
    os.rename(new, tmp_path / "secrets")
    assert found.find(["mx.test"], "ann").password == "two"
    (tmp_path / "secrets").chmod(0o644)
    with pytest.raises(SecretsError, match="can be read by others"):
        found.find(["mx.test"], "ann")


def test_no_repr_has_the_password(tmp_path: Path) -> None:
    found = secrets(tmp_path, "mx.test ann s3kr1t\n")
    assert "s3kr1t" not in repr(found.find(["mx.test"], "ann")) + repr(found) + str(found.find(["mx.test"], "ann"))


# -- AUTH ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def bench(bench: Bench, tmp_path: Path) -> AsyncIterator[Bench]:
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)
    known = secrets(tmp_path, f"mx.test {USER} {PASSWORD}\n")
    bench.sender = replace(bench.sender, contexts=Contexts(str(file)), secrets=known)
    yield bench


def smarthost(hop: NextHop, level: str = "verify", **options: Any) -> PlannedHost:
    return replace(host(hop, name="mx.test"), tls=TlsPolicy(level, "route", "asked"), auth=USER, **options)


def offering(hop: NextHop, mechanisms: str) -> None:
    hop.keywords = ["PIPELINING", *([f"AUTH {mechanisms}"] if mechanisms else [])]


async def test_plain_goes_with_the_command(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "LOGIN PLAIN")
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [DELIVERED]
        assert hop.lines("AUTH") == [f"AUTH PLAIN {PLAIN}"]
        # It is the session that is logged in: the next message needs no AUTH.
        assert outcomes(await bench.attempt(bench.work(smarthost(hop)), ended.session)) == [DELIVERED]
        assert (hop.connections, len(hop.lines("AUTH"))) == (1, 1)


async def test_login_answers_the_servers_questions(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "LOGIN CRAM-MD5")
        hop.auth = ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 ok"]
        assert outcomes(await bench.attempt(bench.work(smarthost(hop)))) == [DELIVERED]
        assert hop.lines("AUTH") == ["AUTH LOGIN"]
        assert [base64.b64decode(each).decode() for each in hop.responses] == [USER, PASSWORD]


def scram_server(password: str, *, proves: bool = True, asks: bool = True) -> Callable[[str], str]:
    """A server's side of SCRAM-SHA-256, written after RFC 5802 section 3. `asks`: its proof comes in a 334."""
    salt, state = b"salty", {"step": "", "first": "", "sent": ""}

    def step(line: str) -> str:
        state["step"] += "."
        if len(state["step"]) == 1:
            state["first"] = base64.b64decode(line.split()[2]).decode().removeprefix("n,,")
            nonce = state["first"].split("r=")[1]
            state["sent"] = f"r={nonce}SERVER,s={b64(salt)},i=4096"
            return "334 " + b64(state["sent"].encode())
        if len(state["step"]) == 3:
            return "235 2.7.0 ok" if line == "" else "501 5.5.2 an empty response was expected"
        said = base64.b64decode(line).decode()
        bare, _, proof = said.rpartition(",p=")
        signed = f"{state['first']},{state['sent']},{bare}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        if bytes(a ^ b for a, b in zip(client_key, signature, strict=True)) != base64.b64decode(proof):
            return "535 5.7.8 wrong"
        mine = hmac.digest(hmac.digest(salted, b"Server Key" if proves else b"?", "sha256"), signed, "sha256")
        return "334 " + b64(b"v=" + b64(mine).encode()) if asks else "235 2.7.0 ok"

    return step


async def test_scram_proves_both_sides_and_the_password_never_leaves(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN LOGIN SCRAM-SHA-256")
        hop.auth = scram_server(PASSWORD)
        assert outcomes(await bench.attempt(bench.work(smarthost(hop)))) == [DELIVERED]
        [command] = hop.lines("AUTH")
        assert command.startswith("AUTH SCRAM-SHA-256 ")
        assert not any(PASSWORD.encode() in base64.b64decode(each) for each in hop.responses)


@pytest.mark.parametrize(("proves", "asks"), [(False, True), (True, False)])
async def test_a_server_that_does_not_prove_itself_gets_no_mail(bench: Bench, proves: bool, asks: bool) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN SCRAM-SHA-256")
        hop.auth = scram_server(PASSWORD, proves=proves, asks=asks)
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.8")]
        assert "prov" in ended.results[0][1].reply
        assert hop.lines("MAIL") == []
        assert len(hop.lines("AUTH")) == 1  # and no other mechanism that would give the password away


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize(
    ("answer", "code", "enhanced"),
    [("535 5.7.8 bad credentials", 535, "4.7.8"), ("535 no", 535, "4.7.8"), ("454 4.7.0 later", 454, "4.7.0")],
)
async def test_a_refused_login_defers_and_never_bounces(
    bench: Bench, mechanisms: str, answer: str, code: int, enhanced: str
) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, mechanisms)
        hop.auth = answer
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, code, enhanced)]
        [(_, verdict, facts)] = ended.results
        assert verdict.rule == "auth"
        assert f"cannot log in at mx.test [127.0.0.1] as {USER}: {answer}" in verdict.reply
        assert facts.tls.reached == "verified"
        assert ended.down is verdict  # no other message is to try the password now: accounts get locked
        assert hop.lines("MAIL") == []


async def test_a_password_that_was_refused_is_not_tried_at_the_hosts_other_addresses(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN")
        hop.auth = "535 5.7.8 no"
        await bench.attempt(bench.work(smarthost(hop, addresses=("127.0.0.1",) * 4)))
        assert len(hop.lines("AUTH")) == 1


async def test_another_host_may_let_us_in(bench: Bench) -> None:
    async with NextHop(tls=serving()) as first, NextHop(tls=serving()) as second:
        offering(first, "PLAIN")
        offering(second, "PLAIN")
        first.auth = "535 5.7.8 no"
        work = bench.work(smarthost(first), smarthost(second, preference=20))
        assert outcomes(await bench.attempt(work)) == [DELIVERED]


async def test_a_mechanism_that_is_offered_and_not_taken_is_followed_by_the_next(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "SCRAM-SHA-256 PLAIN")
        hop.auth = ["504 5.5.4 not now", "235 2.7.0 ok"]
        assert outcomes(await bench.attempt(bench.work(smarthost(hop)))) == [DELIVERED]
        assert [line.split()[1] for line in hop.lines("AUTH")] == ["SCRAM-SHA-256", "PLAIN"]


async def test_a_421_to_auth_is_the_hosts_and_not_the_passwords(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN")
        hop.auth = "421 4.3.2 going down"
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 421, "4.3.2")]


@pytest.mark.parametrize(("mechanisms", "said"), [("", "it offers no AUTH"), ("CRAM-MD5", "it offers only CRAM-MD5")])
async def test_nothing_to_log_in_by_is_said(bench: Bench, mechanisms: str, said: str) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, mechanisms)
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.8")]
        assert said in ended.results[0][1].reply
        assert hop.lines("MAIL") == []


async def test_auth_that_was_offered_before_tls_only_is_not_used(bench: Bench) -> None:  # L08
    async with NextHop(tls=serving()) as hop:
        hop.ehlo = ["250 next.test\nSTARTTLS\nAUTH PLAIN LOGIN", "250 next.test\nPIPELINING"]
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.8")]
        assert hop.lines("AUTH") == []


@pytest.mark.parametrize("level", ["none", "may", "encrypt"])
async def test_no_password_without_verified_tls(bench: Bench, level: str) -> None:
    """Off loopback the level is raised to `verify`, whatever the route says; a wrong certificate gets no password."""
    async with NextHop(tls=serving("other.test")) as hop:
        offering(hop, "PLAIN")
        far = smarthost(hop, level, addresses=("127.0.0.1", "192.0.2.1"))  # not on loopback as a whole
        ended = await bench.attempt(bench.work(far))
        assert outcomes(ended)[0][0] is Outcome.DEFERRED
        assert hop.lines("AUTH") == []
    async with NextHop() as hop:  # no TLS at all
        offering(hop, "PLAIN")
        ended = await bench.attempt(bench.work(smarthost(hop, level)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.4")]
        assert hop.lines("AUTH") == []


async def test_on_loopback_any_certificate_will_do(bench: Bench) -> None:
    async with NextHop(tls=serving("other.test")) as hop:
        offering(hop, "PLAIN")
        assert outcomes(await bench.attempt(bench.work(smarthost(hop, "may")))) == [DELIVERED]


async def test_a_host_that_only_the_dns_named_gets_the_password_only_as_the_one_that_was_written_down(
    bench: Bench, tmp_path: Path
) -> None:
    """The MX of provider.test may be forged: mx.evil.test with a good certificate of its own gets nothing."""
    secrets(tmp_path, f"provider.test {USER} {PASSWORD}\n")
    async with NextHop(tls=serving("mx.test")) as evil, NextHop(tls=serving("mx.test", "provider.test")) as good:
        for hop in (evil, good):
            offering(hop, "PLAIN")
        ended = await bench.attempt(bench.work(smarthost(evil, domain="provider.test")))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.5")]
        assert evil.lines("AUTH") == []
        assert outcomes(await bench.attempt(bench.work(smarthost(good, domain="provider.test")))) == [DELIVERED]


async def test_an_unknown_user_is_told_without_any_connection(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        ended = await bench.attempt(bench.work(replace(smarthost(hop), auth="bob")))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.8")]
        assert "add the line 'mx.test bob PASSWORD'" in ended.results[0][1].reply
        assert hop.connections == 0


async def test_an_initial_response_that_is_too_long_waits_to_be_asked_for(bench: Bench, tmp_path: Path) -> None:
    long = "x" * 400  # RFC 5321 section 4.5.3.1.4: a command has 512 octets
    secrets(tmp_path, f"mx.test {USER} {long}\n")
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN")
        hop.auth = ["334 ", "235 2.7.0 ok"]
        assert outcomes(await bench.attempt(bench.work(smarthost(hop)))) == [DELIVERED]
        assert hop.lines("AUTH") == ["AUTH PLAIN"]
        assert [base64.b64decode(each) for each in hop.responses] == [b"\0ann\0" + long.encode()]


@pytest.mark.parametrize("challenge", ["334 !!!", "334 VXNlcm5hbWU6"])
async def test_a_server_that_asks_for_ever_is_left(bench: Bench, challenge: str) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, "LOGIN")
        hop.auth = challenge
        async with asyncio.timeout(10):
            ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.8")]
        assert len(hop.responses) <= 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
async def test_no_transcript_has_the_password(bench: Bench, mechanism: str) -> None:
    async with NextHop(tls=serving()) as hop:
        offering(hop, mechanism)
        scripts: dict[str, Script] = {
            "PLAIN": ["235 ok"], "LOGIN": ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok"],
            "SCRAM-SHA-256": scram_server(PASSWORD),
        }  # fmt: skip
        hop.auth = scripts[mechanism]
        hop.mail = ["451 4.3.0 later"]
        ended = await bench.attempt(bench.work(smarthost(hop)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 451, "4.3.0")]
        transcript = ended.results[0][2].transcript
        assert f"> AUTH {mechanism} ****" in transcript
        said = [*(line.split()[-1] for line in hop.lines("AUTH")), *hop.responses]
        for secret in (PASSWORD, PLAIN, *(each for each in said if each and each != mechanism)):
            assert secret not in transcript


async def test_users_do_not_share_a_session(bench: Bench, tmp_path: Path) -> None:
    secrets(tmp_path, f"mx.test {USER} {PASSWORD}\nmx.test bob x\n")
    async with NextHop(tls=serving()) as hop:
        offering(hop, "PLAIN")
        one = await bench.attempt(bench.work(smarthost(hop)))
        await bench.attempt(bench.work(replace(smarthost(hop), auth="bob")), one.session)
        assert [base64.b64decode(line.split()[2]) for line in hop.lines("AUTH")] == [
            b"\0ann\0s3kr1t pass", b"\0bob\0x",
        ]  # fmt: skip
