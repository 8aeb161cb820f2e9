"""AUTH (RFC 4954): who gets in, what is said to those who do not, and what is never looked at."""

import asyncio
import base64
import smtplib
from collections.abc import Iterator

import pytest

from mailtui.delivery import sasl
from mailtui.intake import auth, throttle, verifier
from mailtui.intake.mechanisms import MECHANISMS
from mailtui.intake.verifier import Verifier
from mailtui.model import Account
from tests.intake.conftest import TOML, Relay, listener, over_every_wire, until
from tests.support.certificates import client_context
from tests.support.client import Answer, Client

ADDRESS = 'address = "127.0.0.1:0"\n'
OPTIONAL = TOML.replace(ADDRESS, ADDRESS + 'auth = "optional"\nauth_without_tls = true\n')
UNDER_TLS = TOML.replace(ADDRESS, ADDRESS + 'auth = "optional"\n')
REQUIRED = OPTIONAL.replace("optional", "required")
SECRET = "pencil of Ann"


def account(name: str = "ann", password: str = SECRET, quarantined: float | None = None) -> Account:
    return Account(name, Verifier.make(password, iterations=4096).text, 0.0, quarantined)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(name: str = "ann", password: str = SECRET, other: str = "") -> str:
    return "AUTH PLAIN " + b64(f"{other}\0{name}\0{password}")


async def scram(client: Client, name: str = "ann", password: str = SECRET) -> Answer:
    """SCRAM-SHA-256 by the client that our own delivery has."""
    dialogue = sasl.scram_sha_256(name, password)
    first = next(dialogue)
    assert first is not None
    answer = await client.command(f"AUTH SCRAM-SHA-256 {b64(first)}")
    while answer.code == 334:
        said = dialogue.send(base64.b64decode(answer.text[4:]))
        assert said is not None
        answer = await client.command(b64(said))
    return answer


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of every derivation of a key."""
    done: list[int] = []
    derive = verifier.derive

    def counted(password: bytes, salt: bytes, iterations: int) -> bytes:
        done.append(iterations)
        return derive(password, salt, iterations)

    monkeypatch.setattr(verifier, "derive", counted)
    return done


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What stands for nobody is as cheap as the accounts of these tests."""
    monkeypatch.setattr("mailtui.intake.accounts.ITERATIONS", 4096)
    yield


async def with_ann(relay, toml: str = OPTIONAL) -> Relay:
    one: Relay = await relay(toml)
    one.intake.accounts.put(account())
    return one


# -- getting in ------------------------------------------------------------------------------------------------------


@over_every_wire
async def test_every_mechanism_lets_in_who_knows_the_password(relay) -> None:
    one = await with_ann(relay)
    for name in MECHANISMS:
        client = await one.session()
        if name == "PLAIN":
            answer = await client.command(plain())
        elif name == "LOGIN":
            assert (await client.command("AUTH LOGIN")).text == "334 " + b64("Username:")
            assert (await client.command(b64("ann"))).text == "334 " + b64("Password:")
            answer = await client.command(b64(SECRET))
        else:
            answer = await scram(client)
        assert answer.text == "235 2.7.0 Authentication successful", name
        for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
            assert (await client.command(line)).code in (250, 354)
        await client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert (await client.reply()).code == 250
    assert [m.envelope.user for m in one.queue.messages] == ["ann"] * 3
    assert all(m.envelope.trusted for m in one.queue.messages)
    assert all(m.recipients[0].submitter == "ann" for m in one.queue.messages)
    protocol = "ESMTPA" if one.wire == "plain" else "ESMTPSA"  # U11
    for message in one.queue.messages:
        assert message.envelope.protocol == protocol
        trace = (message.body or b"").partition(b"Subject:")[0]
        assert f" with {protocol} id ".encode() in trace and b"ann" not in trace
    assert [(e["user"], e["mechanism"]) for e in one.told("authenticated")] == [("ann", m) for m in
            ("SCRAM-SHA-256", "PLAIN", "LOGIN")]  # fmt: skip


async def test_a_mechanism_has_no_case_and_an_initial_response_may_wait(relay) -> None:
    one = await with_ann(relay)
    client = await one.session()
    assert (await client.command("auth plain")).text == "334 "
    assert (await client.command(plain().split()[-1])).code == 235
    client = await one.session()
    assert (await client.command("AUTH LOGIN " + b64("ann"))).text == "334 " + b64("Password:")
    assert (await client.command(b64(SECRET))).code == 235


async def test_a_user_is_known_whatever_the_case_and_the_width_of_its_letters(relay) -> None:
    one = await with_ann(relay)
    for name in ("Ann", "ANN", "\uff21nn", "a\u00adnn"):  # SASLprep maps the last two to Ann and ann
        assert (await (await one.session()).command(plain(name))).code == 235
        assert (await scram(await one.session(), name)).code == 235


async def test_who_is_authenticated_may_relay_from_anywhere_and_a_stranger_may_not(relay) -> None:
    one = await with_ann(relay, OPTIONAL + "[access]\nnetworks = []\n")
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 554
    await client.command("RSET")
    assert (await client.command(plain())).code == 235
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250


async def test_authentication_belongs_to_the_connection_and_outlives_ehlo_and_rset(relay) -> None:  # U08, S07
    one = await with_ann(relay, REQUIRED)
    client = await one.session()
    assert (await client.command(plain())).code == 235
    for line in ("EHLO other.test", "RSET", "NOOP", "MAIL FROM:<a@b.example>"):
        assert (await client.command(line)).code == 250
    other = await one.session()  # from the same address, at the same time
    assert (await other.command("MAIL FROM:<a@b.example>")).text.startswith("530 5.7.0")


async def test_the_session_of_plain_text_is_forgotten_by_starttls(relay, tls_files) -> None:  # L04
    one = await with_ann(relay, listener("starttls", tls_files, REQUIRED))
    client = await one.session()
    assert (await client.command(plain())).code == 235
    assert (await client.command("STARTTLS")).code == 220
    await client.start_tls(client_context(verify=False))
    await client.command("EHLO client.test")
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("530 5.7.0")
    assert (await client.command(plain())).code == 235
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


@over_every_wire
async def test_smtplib_logs_in_by_plain_and_by_login(relay) -> None:
    one = await with_ann(relay, REQUIRED)

    def work() -> None:
        for method in ("PLAIN", "LOGIN"):
            if one.wire == "implicit":
                client: smtplib.SMTP = smtplib.SMTP_SSL(
                    "127.0.0.1", one.port, "client.test", timeout=10, context=client_context(verify=False)
                )
            else:
                client = smtplib.SMTP("127.0.0.1", one.port, "client.test", timeout=10)
            with client:
                if one.wire == "starttls":
                    client.starttls(context=client_context(verify=False))
                client.ehlo()
                client.user, client.password = "ann", SECRET
                login = client.auth_plain if method == "PLAIN" else client.auth_login
                assert client.auth(method, login)[0] == 235
                client.sendmail("a@b.example", ["c@d.example"], "x")

    await asyncio.to_thread(work)
    assert [message.envelope.user for message in one.queue.messages] == ["ann", "ann"]


# -- where it is offered ---------------------------------------------------------------------------------------------


async def test_without_tls_auth_is_neither_offered_nor_looked_at(relay, tls_files, derivations) -> None:  # U01
    one = await with_ann(relay, listener("starttls", tls_files, UNDER_TLS))
    del derivations[:]
    client = await Client.connect(one.port)
    assert "AUTH" not in (await client.command("EHLO client.test")).text
    for line in (plain(), plain(password="wrong"), "AUTH LOGIN", "AUTH NONSENSE", "AUTH PLAIN %%%"):
        assert (await client.command(line)).text.startswith("538 5.7.11 ")
    assert derivations == [] and one.told("auth-failed") == []
    assert (await client.command("STARTTLS")).code == 220
    await client.start_tls(client_context(verify=False))
    offered = (await client.command("EHLO client.test")).lines
    assert "250-AUTH SCRAM-SHA-256 PLAIN LOGIN" in offered or "250 AUTH SCRAM-SHA-256 PLAIN LOGIN" in offered
    assert (await client.command(plain())).code == 235


async def test_a_listener_with_auth_off_knows_no_auth(relay, derivations) -> None:
    one = await with_ann(relay, TOML)
    del derivations[:]
    client = await Client.connect(one.port)
    assert "AUTH" not in (await client.command("EHLO client.test")).text
    assert (await client.command(plain())).text.startswith("502 5.5.1")
    assert derivations == []


async def test_mail_needs_authentication_where_it_is_required(relay) -> None:  # U09
    client = await (await with_ann(relay, REQUIRED)).session()
    assert (await client.command("MAIL FROM:<a@b.example>")).text == "530 5.7.0 Authentication required"
    assert (await client.command(plain())).code == 235
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_auth_comes_after_ehlo_outside_a_transaction_and_once(relay) -> None:  # U02
    one = await with_ann(relay)
    client = await one.client()
    assert (await client.command(plain())).text.startswith("503 5.5.1")
    await client.command("HELO client.test")
    assert (await client.command(plain())).text.startswith("503 5.5.1")
    await client.command("EHLO client.test")
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command(plain())).text.startswith("503 5.5.1")
    await client.command("RSET")
    assert (await client.command(plain())).code == 235
    assert (await client.command(plain())).text.startswith("503 5.5.1")
    assert (await client.command("AUTH NONSENSE")).text.startswith("503 5.5.1")


async def test_the_parameter_auth_of_mail_is_taken_and_logs_nobody_in(relay) -> None:  # U05
    one = await with_ann(relay, OPTIONAL + "[access]\nnetworks = []\n")
    client = await one.session()
    for value in ("<>", "ann+40b.example", "e+3Dmc2@example.com"):
        assert (await client.command(f"MAIL FROM:<a@b.example> AUTH={value} SIZE=10")).code == 250
        assert (await client.command("RCPT TO:<c@d.example>")).code == 554
        await client.command("RSET")
    for value in ("", "=x", "a b", "a+4x", "x" * 501, "+0D+0A", "\u00e9"):
        assert (await client.command(f"MAIL FROM:<a@b.example> AUTH={value}")).code in (501, 555), value
    off = await (await relay(TOML)).session()
    assert (await off.command("MAIL FROM:<a@b.example> AUTH=<>")).text.startswith("555 5.5.4")


# -- the dialogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", b64("ann"), "*"], "501 5.7.0"),
        (["AUTH PLAIN not-base64!"], "501 5.5.2"),
        (["AUTH PLAIN YQ"], "501 5.5.2"),  # no padding
        (["AUTH PLAIN YQ== x"], "501 5.5.2"),
        (["AUTH LOGIN", "YQ==YQ=="], "501 5.5.2"),
        (["AUTH LOGIN", " YW5u"], "501 5.5.2"),
        (["AUTH LOGIN", "\u00e9"], "501 5.5.2"),
        (["AUTH LOGIN", b64("ann"), ""], "501 5.5.2"),
        (["AUTH PLAIN ="], "501 5.5.2"),  # U04: the empty response, which is none of PLAIN
        (["AUTH PLAIN", ""], "501 5.5.2"),
        (["AUTH PLAIN " + b64("ann")], "501 5.5.2"),
        (["AUTH PLAIN " + b64("\0ann\0x\0y")], "501 5.5.2"),
        (["AUTH PLAIN " + b64("\0\0x")], "501 5.5.2"),
        (["AUTH PLAIN " + b64("\0ann\0")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("p=tls-unique,,n=ann,r=abc")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,m=x,n=ann,r=abc")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,n=a=3Fnn,r=abc")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,n=ann,r=abc"), b64("nonsense")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,n=ann,r=abc"), "*"], "501 5.7.0"),
        (["AUTH"], "501 5.5.4"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        (["AUTH SCRAM-SHA-256-PLUS"], "504 5.5.4"),
        (["AUTH \u00e9 x"], "504 5.5.4"),
    ],
)
async def test_what_is_no_dialogue_ends_and_the_session_goes_on(relay, lines: list[str], last: str) -> None:  # U03
    one = await with_ann(relay)
    client = await one.session()
    for line in lines[:-1]:
        assert (await client.command(line)).code == 334
    assert (await client.command(lines[-1])).text.startswith(last)
    assert one.told("auth-failed") == []  # nobody has tried a password
    assert (await client.command(plain())).code == 235


async def test_a_command_within_a_dialogue_is_a_response_and_runs_no_more(relay) -> None:
    client = await (await with_ann(relay)).session()
    assert (await client.command("AUTH LOGIN")).code == 334
    assert (await client.command("QUIT")).code == 334  # which is base64
    assert (await client.command("MAIL FROM:<a@b.example>")).text.startswith("501 5.5.2")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_a_dialogue_that_comes_in_one_packet_is_answered_line_by_line(relay) -> None:
    client = await (await with_ann(relay)).session()
    await client.send(f"AUTH LOGIN\r\n{b64('ann')}\r\n{b64(SECRET)}\r\nNOOP\r\nMAIL FROM:<a@b.example>\r\n".encode())
    assert [(await client.reply()).code for _ in range(5)] == [334, 334, 235, 250, 250]


async def test_lines_of_a_dialogue_may_have_12288_octets(relay, derivations) -> None:  # U04
    one = await with_ann(relay)
    del derivations[:]
    client = await one.session()
    longest = b64("\0ann\0" + "x" * (auth.LINE_LIMIT // 4 * 3 - 5))
    assert len(longest) == auth.LINE_LIMIT
    assert (await client.command("AUTH PLAIN")).code == 334
    assert (await client.command(longest)).text.startswith("535 5.7.8")
    assert (await client.command("AUTH PLAIN")).code == 334
    for _ in range(2):  # in one piece, and in two
        await client.send(longest.encode() + b"AAAA")
        await client.send(b"\r\n")
        assert (await client.reply()).text.startswith("500 5.5.6")
        assert (await client.command("AUTH PLAIN")).code == 334
    assert (await client.command("*")).code == 501
    assert (await client.command("AUTH PLAIN " + longest[:-16])).text.startswith("535 5.7.8")
    assert (await client.command("AUTH PLAIN " + longest)).text.startswith("500 5.5.2")
    assert (await client.command("NOOP " + "x" * 3000)).text.startswith("500 5.5.2")  # as ever
    assert len(derivations) == 2


# -- those who do not get in -----------------------------------------------------------------------------------------


async def test_an_unknown_user_and_a_wrong_password_are_told_the_same_and_cost_the_same(relay, derivations) -> None:
    """U06, by the keys derived and by the answers, octet for octet."""
    one = await with_ann(relay)
    del derivations[:]
    answers: list[tuple[str, list[int]]] = []
    for name, password in (
        ("ann", "wrong"),
        ("bob", SECRET),
        ("", ""),
        ("ann", "bell\x07"),
        ("b\x07b", "x"),
        ("\ufffe", "x"),
    ):
        client = await one.session()
        await client.command("AUTH LOGIN")
        await client.command(b64(name or "nobody"))
        answer = await client.command(b64(password or "x"))
        answers.append((answer.text, list(derivations)))
        del derivations[:]
        one.clock.advance(throttle.FORGET + 1)
    assert set(map(str, answers)) == {str(("535 5.7.8 Authentication credentials invalid", [4096]))}


async def test_scram_shows_nobody_which_names_there_are(relay) -> None:  # U06
    one = await with_ann(relay)

    async def challenge(name: str) -> dict[str, str]:
        client = await one.session()
        answer = await client.command("AUTH SCRAM-SHA-256 " + b64(f"n,,n={name},r=abc"))
        said = base64.b64decode(answer.text[4:]).decode()
        assert (await client.command("*")).code == 501
        return dict(part.split("=", 1) for part in said.split(","))  # type: ignore[misc]

    ann, bob, bob2, eve = [await challenge(name) for name in ("ann", "bob", "bob", "eve")]
    assert bob["s"] == bob2["s"] != eve["s"]  # the same salt each time, as that of an account
    assert len(bob["s"]) == len(ann["s"]) and bob["i"] == ann["i"] == "4096"
    assert len({ann["r"], bob["r"], bob2["r"], eve["r"]}) == 4
    for name, password in (("ann", "wrong"), ("bob", SECRET)):
        answer = await scram(await one.session(), name, password)
        assert answer.text == "535 5.7.8 Authentication credentials invalid"


async def test_a_proof_of_another_dialogue_proves_nothing(relay) -> None:
    """A recorded login cannot be replayed: our nonce is another one."""
    one = await with_ann(relay)
    client = await one.session()
    dialogue = sasl.scram_sha_256("ann", SECRET)
    first = next(dialogue)
    assert first is not None
    answer = await client.command("AUTH SCRAM-SHA-256 " + b64(first))
    final = dialogue.send(base64.b64decode(answer.text[4:]))
    assert final is not None
    assert (await client.command(b64(final))).code == 334
    other = await one.session()
    await other.command("AUTH SCRAM-SHA-256 " + b64(first))
    assert (await other.command(b64(final))).text.startswith("535 5.7.8")


async def test_nobody_may_act_for_somebody_else(relay) -> None:
    one = await with_ann(relay)
    one.intake.accounts.put(account("bob", "other"))
    assert (await (await one.session()).command(plain(other="bob"))).code == 535
    assert (await (await one.session()).command(plain(other="ann"))).code == 235
    client = await one.session()
    name = "n,a=bob,n=ann,r=abc"
    assert (await client.command("AUTH SCRAM-SHA-256 " + b64(name))).code == 334


async def test_secrets_reach_no_log_and_no_repr(relay) -> None:  # U06
    one = await with_ann(relay)
    for password in (SECRET, "Wrong-Horse"):
        client = await one.session()
        await client.command(plain(password=password))
        await client.command("QUIT")
    await scram(await one.session())
    told = repr(list(one.events.recent))
    known = one.intake.accounts.get("ann")
    assert known is not None
    shown = told + repr(known) + repr(Verifier.parse(known.verifier)) + repr(one.intake.accounts.verifier("nobody"))
    for secret in (SECRET, "Wrong-Horse", b64(SECRET), plain().split()[-1], *known.verifier.split("$")[1:]):
        assert secret not in shown
    assert [(e["user"], e["client"]) for e in one.told("auth-failed")] == [("ann", "127.0.0.1")]


async def test_an_account_in_quarantine_is_told_so_only_with_its_password(relay) -> None:
    one = await with_ann(relay)
    one.intake.accounts.put(account(quarantined=1.0))
    assert (await (await one.session()).command(plain())).text.startswith("525 5.7.13 ")
    assert (await scram(await one.session())).text.startswith("525 5.7.13 ")
    client = await one.session()
    assert (await client.command(plain(password="wrong"))).text.startswith("535 5.7.8 ")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250  # as the network that it is in
    assert one.intake.accounts.quarantined == {"ann"}


async def test_a_session_of_an_account_that_is_gone_is_closed_at_once(relay) -> None:
    one = await with_ann(relay)
    idle, sending, other = [await one.session() for _ in range(3)]
    for client in (idle, sending):
        assert (await client.command(plain())).code == 235
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
        await sending.command(line)
    await sending.send(b"Subject: half\r\n")
    one.intake.accounts.remove("ann")
    await one.intake.dismiss("ann")
    for client in (idle, sending):
        assert (await client.reply()).text == "421 4.7.0 relay.example.org The account is not active any more"
        assert await client.closed() == b""
    assert (await other.command("NOOP")).code == 250
    assert one.queue.messages == []


async def test_what_is_on_its_way_to_disk_is_answered_before_its_session_is_closed(relay) -> None:
    one = await with_ann(relay)
    client = await one.session()
    await client.command(plain())
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
        await client.command(line)
    one.queue.hold = True
    await client.send(b"Subject: whole\r\n\r\nx\r\n.\r\n")
    await until(lambda: one.queue.commits)
    dismissed = asyncio.ensure_future(one.intake.dismiss("ann"))
    await asyncio.sleep(0)
    assert not dismissed.done()
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).code == 250
    assert (await client.reply()).code == 421
    await asyncio.wait_for(dismissed, 10)


# -- the cost --------------------------------------------------------------------------------------------------------


async def test_a_right_password_is_remembered_for_a_while_and_a_wrong_one_never(relay, derivations) -> None:
    one = await with_ann(relay)
    del derivations[:]
    for _ in range(5):
        assert (await (await one.session()).command(plain())).code == 235
    assert len(derivations) == 1
    for _ in range(2):
        assert (await (await one.session()).command(plain(password="wrong"))).code == 535
    assert len(derivations) == 3
    one.clock.advance(301)
    assert (await (await one.session()).command(plain())).code == 235
    assert len(derivations) == 4


async def test_a_new_password_and_the_end_of_an_account_hold_at_once(relay) -> None:
    one = await with_ann(relay)
    assert (await (await one.session()).command(plain())).code == 235
    one.intake.accounts.put(account(password="another"))
    assert (await (await one.session()).command(plain())).code == 535
    assert (await (await one.session()).command(plain(password="another"))).code == 235
    one.intake.accounts.remove("ann")
    assert (await (await one.session()).command(plain(password="another"))).code == 535


async def test_when_too_many_passwords_wait_the_next_client_is_told_to_come_again(relay, monkeypatch) -> None:  # U03
    one = await with_ann(relay)
    monkeypatch.setattr("mailtui.intake.logins.WAITING", 0)
    client = await one.session()
    assert (await client.command(plain())).text.startswith("454 4.7.0 ")
    assert (await scram(await one.session())).code == 235  # costs no derivation
    monkeypatch.setattr("mailtui.intake.logins.WAITING", 1)
    assert (await client.command(plain())).code == 235
    assert one.told("auth-failed") == []


# -- brute force: U07 ------------------------------------------------------------------------------------------------


async def test_a_connection_may_fail_three_times(relay) -> None:
    one = await with_ann(relay)
    client = await one.session()
    for _ in range(3):
        assert (await client.command(plain(password="wrong"))).code == 535
    assert (await client.command(plain())).text.startswith("421 4.7.0 ")
    assert await client.closed() == b""
    assert len(one.told("auth-failed")) == 3


async def test_each_further_failure_of_a_client_costs_more_time(relay) -> None:
    one = await with_ann(relay)
    for number in range(throttle.FREE + 1):
        assert (await (await one.session()).command(plain(f"user{number}", "wrong"))).code == 535
    for pause in (1, 2, 4, 8):
        client = await one.session()
        asked = asyncio.ensure_future(client.command(plain("other", "wrong")))
        await until(lambda: one.clock._sleepers)
        one.clock.advance(pause - 0.1)
        await asyncio.sleep(0)
        assert not asked.done() and one.clock._sleepers
        one.clock.advance(0.1)
        assert (await asked).code == 535
    assert one.intake.logins.throttle.slowed() == (1, 1)
    # The next would have to wait for longer than a client does: turned away unlooked at, be it right or wrong.
    for password in (SECRET, "wrong"):
        assert (await (await one.session()).command(plain(password=password))).text.startswith("454 4.7.0 ")
    one.clock.advance(throttle.FORGET + 1)
    assert (await (await one.session()).command(plain())).code == 235


async def test_guesses_at_an_account_from_many_places_are_slowed_but_do_not_lock_its_owner_out(relay) -> None:
    one = await with_ann(relay)
    assert (await (await one.session()).command(plain())).code == 235  # from 127.0.0.1, where Ann is known then
    for number in range(2, 9):
        client = await one.client(source=f"127.0.0.{number}")
        await client.command("EHLO client.test")
        asked = asyncio.ensure_future(client.command(plain(password="guess")))
        await until(lambda a=asked: a.done() or one.clock._sleepers)  # type: ignore[misc]
        if not asked.done():
            one.clock.advance(4)
        assert (await asked).code == 535
    throttled = one.intake.logins.throttle
    assert throttled.slowed() == (0, 1)
    assert throttled.turn(99, "ann") == 8.0
    del one.intake.logins._right["ann"]  # not by what is remembered of the password
    assert (await (await one.session()).command(plain())).code == 235
    for _ in range(throttle.FREE + 1):  # but whoever guesses from there is slowed like any other
        throttled.failed(one.intake.client_key(None), "ann")
    assert throttled.turn(one.intake.client_key(None), "ann") != 0.0


def test_the_memory_of_failures_is_bounded(clock_of_throttle) -> None:
    table = throttle.Throttle(clock_of_throttle)
    for number in range(throttle.REMEMBERED + 50):
        table.failed(number, f"user{number}")
        table.succeeded(number, f"user{number}")
    assert len(table._clients) == len(table._accounts) == len(table._welcome) == throttle.REMEMBERED


def test_attempts_at_once_wait_their_turn_one_behind_the_other(clock_of_throttle) -> None:
    table = throttle.Throttle(clock_of_throttle)
    for _ in range(throttle.FREE + 2):
        table.failed(1, "ann")
    turns = [table.turn(1, "ann") for _ in range(8)]
    assert turns == [2.0, 4.0, 6.0, 8.0, 10.0, None, None, None]
    assert table.turn(2, "bob") == 0.0


async def test_a_client_that_hangs_up_before_the_answer_is_counted_too(relay) -> None:
    one = await with_ann(relay)
    client = await one.session()
    await client.send(plain(password="wrong").encode() + b"\r\n")
    await client.close()
    await until(lambda: one.told("auth-failed"))
    assert one.intake.logins.throttle._clients.slow(one.intake.client_key(None), 0.0) == []
    assert len(one.intake.logins.throttle._clients) == 1


@pytest.fixture
def clock_of_throttle():
    from mailtui.clock import ManualClock

    return ManualClock()
