"""TLS to a next hop, with real handshakes: what each level does with what a host offers (standards section 4)."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailtui.clock import ManualClock
from mailtui.delivery.attempt import Ended
from mailtui.delivery.client import HANDSHAKE
from mailtui.model import Outcome, PlannedHost, TlsFacts, TlsPolicy, Verdict
from mailtui.tls.connecting import Contexts
from tests.delivery.conftest import BODY, Bench, host, outcomes, turns
from tests.support.certificates import authority
from tests.support.nexthop import DROP, NextHop

DELIVERED = (Outcome.DELIVERED, 250, "2.0.0")
LATER = [(Outcome.DEFERRED, 0, "4.7.5")]
LEVELS = pytest.mark.parametrize("level", ["may", "encrypt", "verify"])
STRICT = pytest.mark.parametrize("level", ["encrypt", "verify"])


def serving(*names: str, ca: trustme.CA | None = None, not_after: datetime.datetime | None = None) -> ssl.SSLContext:
    """A server's side with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begin = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    made = (ca or authority()).issue_cert(*(names or ("mx.test",)), not_before=begin, not_after=not_after)
    made.configure_cert(context)
    return context


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.test")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1)).not_valid_after(datetime.datetime(2100, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "self.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def failing() -> ssl.SSLContext:
    """A server's side with which no handshake succeeds."""
    context = serving()
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
    return context


def planned(hop: NextHop, level: str = "", *, match: tuple[str, ...] = (), **options: Any) -> PlannedHost:
    tls = TlsPolicy(level, "route", f"the route says tls={level}", match) if level else None
    return replace(host(hop, name="mx.test"), tls=tls, **options)


def only(ended: Ended) -> tuple[Verdict, TlsFacts]:
    [(_, verdict, attempt)] = ended.results
    return verdict, attempt.tls


@pytest.fixture
async def bench(bench: Bench, tmp_path: Path) -> AsyncIterator[Bench]:
    """As in conftest, and it believes the tests' authority."""
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)
    bench.sender = replace(bench.sender, contexts=Contexts(str(file)))
    yield bench


@LEVELS
async def test_tls_is_used_where_it_is_offered_and_its_facts_are_recorded(bench: Bench, level: str) -> None:  # L13
    async with NextHop(tls=serving()) as hop:
        verdict, facts = only(await bench.attempt(bench.work(planned(hop, level))))
        assert verdict.outcome is Outcome.DELIVERED
        [got] = hop.messages
        assert (got.tls, got.data) == (True, BODY)
    assert (facts.wanted, facts.reached) == (level, "verified" if level == "verify" else "encrypted")
    assert (facts.protocol, facts.verified_by) == ("TLSv1.3", "pkix" if level == "verify" else None)
    assert facts.cipher is not None
    assert facts.cipher.startswith("TLS_")
    assert facts.why == f"the route says tls={level}"


async def test_the_next_message_over_the_session_has_the_same_facts(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        plan = planned(hop, "verify")
        first = await bench.attempt(bench.work(plan))
        second = await bench.attempt(bench.work(plan), first.session)
        assert hop.connections == 1
    assert second.results[0][2].reused
    assert only(first)[1] is only(second)[1]  # made once a session


async def test_none_stays_in_clear_text_whatever_is_offered(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        verdict, facts = only(await bench.attempt(bench.work(planned(hop, "none"))))
        assert hop.lines("STARTTLS") == []
    assert verdict.outcome is Outcome.DELIVERED
    assert (facts.wanted, facts.reached, facts.protocol) == ("none", "none", None)


async def test_may_goes_on_in_clear_text_where_nothing_is_offered_and_says_so(bench: Bench, hop: NextHop) -> None:
    verdict, facts = only(await bench.attempt(bench.work(planned(hop, "may"))))
    assert verdict.outcome is Outcome.DELIVERED
    assert (facts.wanted, facts.reached) == ("may", "none")
    assert facts.why == "the route says tls=may; STARTTLS is not offered"


@STRICT
async def test_a_host_that_offers_no_starttls_gets_nothing_on_a_strict_level(bench: Bench, level: str) -> None:
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(NextHop())
        ended = await bench.attempt(bench.work(planned(plain, level)))
        assert outcomes(ended) == [(Outcome.DEFERRED, 0, "4.7.4")]
        verdict, facts = only(ended)
        assert verdict.rule == "tls-policy"
        assert "mx.test [127.0.0.1] does not offer STARTTLS" in verdict.reply
        assert (facts.wanted, facts.reached) == (level, "none")
        assert plain.lines("MAIL") == []
        # Another host of the next hop may do better.
        secure = await stack.enter_async_context(NextHop(tls=serving()))
        both = bench.work(planned(plain, level), replace(planned(secure, level), preference=20))
        assert outcomes(await bench.attempt(both)) == [DELIVERED]


async def test_a_host_that_knows_only_helo_fails_on_a_strict_level(bench: Bench, hop: NextHop) -> None:  # D10
    hop.ehlo = "502 5.5.1 not implemented"
    assert outcomes(await bench.attempt(bench.work(planned(hop, "encrypt")))) == [(Outcome.DEFERRED, 0, "4.7.4")]
    assert outcomes(await bench.attempt(bench.work(planned(hop, "may")))) == [DELIVERED]


# -- handshakes that fail --------------------------------------------------------------------------------------------


async def test_on_may_a_failed_handshake_is_followed_by_a_new_connection_in_clear_text(bench: Bench) -> None:  # L09
    async with NextHop(tls=failing()) as hop:
        ended = await bench.attempt(bench.work(planned(hop, "may")))
        assert outcomes(ended) == [DELIVERED]
        assert hop.connections == 2
        assert not hop.messages[0].tls
        facts = only(ended)[1]
        assert facts.reached == "none"
        assert "in clear text, since mx.test [127.0.0.1]: the TLS handshake failed: " in facts.why
        # The connection of the failed handshake carried nothing else (L05).
        assert [line for number, line in hop.commands if number == 1] == ["EHLO relay.test", "STARTTLS"]


@STRICT
async def test_on_strict_levels_a_failed_handshake_goes_on_to_the_next_host_or_waits(bench: Bench, level: str) -> None:
    async with NextHop(tls=failing()) as broken, NextHop(tls=serving()) as good:  # L09
        ended = await bench.attempt(bench.work(planned(broken, level)))
        assert outcomes(ended) == LATER
        assert only(ended)[0].rule == "tls-policy"
        assert ended.down is not None  # whoever is next would fare no better
        both = bench.work(planned(broken, level), replace(planned(good, level), preference=20))
        assert outcomes(await bench.attempt(both)) == [DELIVERED]
        assert broken.lines("MAIL") == []


@pytest.mark.parametrize("answer", ["454 4.7.0 TLS not available", "502 5.5.1 no", "354 what?"])
async def test_a_refused_starttls_is_a_failed_one(bench: Bench, answer: str) -> None:  # L02, L09
    async with NextHop(tls=serving()) as hop:
        hop.starttls = answer
        ended = await bench.attempt(bench.work(planned(hop, "verify")))
        assert outcomes(ended) == LATER
        assert answer in only(ended)[0].reply
        ended = await bench.attempt(bench.work(planned(hop, "may")))
        assert outcomes(ended) == [DELIVERED]
        assert f"answered it with: {answer}" in only(ended)[1].why
        assert not hop.messages[0].tls


async def test_a_421_to_starttls_ends_the_session_and_no_clear_text_follows(bench: Bench) -> None:  # Q11
    async with NextHop(tls=serving()) as hop:
        hop.starttls = "421 4.3.2 going down"
        assert outcomes(await bench.attempt(bench.work(planned(hop, "may")))) == [(Outcome.DEFERRED, 421, "4.3.2")]
        assert hop.connections == 1


@pytest.mark.parametrize("level", ["may", "encrypt"])
async def test_a_session_that_breaks_right_after_the_handshake_counts_as_a_failed_handshake(
    bench: Bench, level: str
) -> None:
    async with NextHop(tls=serving()) as hop:
        hop.ehlo = ["250 next.test\nSTARTTLS", DROP]
        ended = await bench.attempt(bench.work(planned(hop, level)))
        assert outcomes(ended) == ([DELIVERED] if level == "may" else LATER)
        assert "the session broke after the TLS handshake" in (
            only(ended)[1].why if level == "may" else only(ended)[0].reply
        )


@LEVELS
async def test_a_handshake_that_never_ends_is_given_up(bench: Bench, level: str) -> None:  # Q02
    shaking = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"220 mx.test\r\n")
        await reader.readline()
        writer.write(b"250-mx.test\r\n250 STARTTLS\r\n")
        if (await reader.readline()).startswith(b"STARTTLS"):
            writer.write(b"220 go\r\n")
            await reader.readexactly(5)
            shaking.set()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        tls = TlsPolicy(level, "route", "asked")
        work = bench.work(PlannedHost(10, "mx.test", ("127.0.0.1",), port, tls=tls))
        attempt = asyncio.create_task(bench.attempt(work))
        await asyncio.wait_for(shaking.wait(), 5)
        bench.clock.advance(HANDSHAKE + 1)
        ended = await asyncio.wait_for(attempt, 5)
    verdict, facts = only(ended)
    assert verdict.outcome is Outcome.DEFERRED
    assert "the TLS handshake timed out after 60 s" in (facts.why if level == "may" else verdict.reply)
    assert connections == (2 if level == "may" else 1)


# -- certificates ----------------------------------------------------------------------------------------------------


def bad_certificates(folder: Path) -> dict[str, tuple[ssl.SSLContext, str]]:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return {
        "wrong name": (serving("other.test"), "the certificate is for other.test and not for mx.test"),
        "expired": (serving(not_after=past), "certificate has expired"),
        "self-signed": (self_signed(folder), "self-signed certificate"),
        "unknown authority": (serving(ca=trustme.CA()), "unable to get local issuer certificate"),
    }


@LEVELS
@pytest.mark.parametrize("fault", ["wrong name", "expired", "self-signed", "unknown authority"])
async def test_only_verify_minds_the_certificate(bench: Bench, tmp_path: Path, level: str, fault: str) -> None:  # L12
    context, said = bad_certificates(tmp_path)[fault]
    async with NextHop(tls=context) as hop:
        ended = await bench.attempt(bench.work(planned(hop, level)))
        verdict, facts = only(ended)
        if level == "verify":
            assert outcomes(ended) == LATER
            assert said in verdict.reply
            assert "mx.test [127.0.0.1]" in verdict.reply
            assert (facts.wanted, facts.reached, facts.verified_by) == ("verify", "none", None)
            assert said in facts.why
            # Nothing was said under a certificate that is not the host's.
            assert [line for _, line in hop.commands] == ["EHLO relay.test", "STARTTLS"]
        else:
            assert outcomes(ended) == [DELIVERED]
            assert (facts.reached, facts.verified_by) == ("encrypted", None)
            assert hop.messages[0].tls


async def test_the_names_of_the_policy_are_as_good_as_the_hosts(bench: Bench) -> None:
    async with NextHop(tls=serving("mail.provider.test")) as hop:
        assert outcomes(await bench.attempt(bench.work(planned(hop, "verify")))) == LATER
        named = planned(hop, "verify", match=("mail.provider.test",))
        assert outcomes(await bench.attempt(bench.work(named))) == [DELIVERED]


@pytest.mark.parametrize(("names", "good"), [(("127.0.0.1",), True), (("127.0.0.2", "mx.test"), False)])
async def test_a_host_that_is_an_address_needs_that_address(bench: Bench, names: tuple[str, ...], good: bool) -> None:
    async with NextHop(tls=serving(*names)) as hop:
        by_address = replace(planned(hop, "verify"), name="127.0.0.1")
        assert outcomes(await bench.attempt(bench.work(by_address))) == ([DELIVERED] if good else LATER)


async def test_the_name_asked_for_is_the_hosts(bench: Bench) -> None:
    asked: list[str | None] = []
    context = serving()
    context.sni_callback = lambda connection, name, _: asked.append(name)
    async with NextHop(tls=context) as hop:
        await bench.attempt(bench.work(planned(hop, "may")))
        await bench.attempt(bench.work(replace(planned(hop, "may"), name="127.0.0.1")))
    assert asked == ["mx.test", None]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_better_than_clear_text_but_no_more_than_that(bench: Bench) -> None:  # L11
    context = serving()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    async with NextHop(tls=context) as hop:
        verdict, facts = only(await bench.attempt(bench.work(planned(hop, "may"))))
        assert (verdict.outcome, facts.reached, facts.protocol) == (Outcome.DELIVERED, "encrypted", "TLSv1")
        assert outcomes(await bench.attempt(bench.work(planned(hop, "encrypt")))) == LATER


async def test_a_ca_file_that_vanished_defers_and_says_so(bench: Bench, tmp_path: Path) -> None:
    bench.sender = replace(bench.sender, contexts=Contexts(str(tmp_path / "gone.pem")))
    async with NextHop(tls=serving()) as hop:
        ended = await bench.attempt(bench.work(planned(hop, "verify")))
    assert outcomes(ended) == LATER
    assert "gone.pem cannot be used: No such file or directory" in only(ended)[0].reply


# -- injection -------------------------------------------------------------------------------------------------------


@LEVELS
@pytest.mark.parametrize("behind", [b"250 2.0.0 injected\r\n", b"250-next.test\r\n250 AUTH PLAIN\r\n", b"25", b"x\r\n"])
async def test_clear_text_behind_the_reply_to_starttls_is_an_attack(bench: Bench, level: str, behind: bytes) -> None:
    """CVE-2011-0411, NO STARTTLS: a reply that was injected must not answer a command that is said under TLS. L03"""
    async with NextHop(tls=serving()) as hop:
        hop.starttls = b"220 2.0.0 go\r\n" + behind
        ended = await bench.attempt(bench.work(planned(hop, level)))
        assert outcomes(ended) == LATER
        verdict, _ = only(ended)
        assert ("not SMTP" if behind == b"x\r\n" else "somebody meddles") in verdict.reply
        assert hop.connections == 1
        assert hop.lines("MAIL") == []


async def test_what_was_said_before_tls_is_forgotten(bench: Bench) -> None:  # L04, L08
    async with NextHop(tls=serving()) as hop:
        hop.ehlo = ["250 next.test\nSTARTTLS\nSIZE 1\nLIMITS RCPTMAX=1\nCHUNKING\nDSN", "250 next.test\nPIPELINING"]
        ended = await bench.attempt(bench.work(planned(hop, "encrypt")))
        assert outcomes(ended) == [DELIVERED]  # SIZE 1 would have stopped it
        assert len(hop.lines("EHLO")) == 2
        assert hop.lines("MAIL") == ["MAIL FROM:<a@sender.test>"]
        assert hop.lines("BDAT") == []
        assert ended.results[0][2].onward == ""
        assert ended.session is not None
        assert ended.session.extensions == {"pipelining": ""}


# -- implicit TLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["", "encrypt", "verify"])
async def test_smtps_is_tls_from_the_first_octet(bench: Bench, level: str) -> None:  # L10
    async with NextHop(tls=serving(), implicit_tls=True) as hop:
        ended = await bench.attempt(bench.work(planned(hop, level, scheme="smtps")))
        assert outcomes(ended) == [DELIVERED]
        assert hop.messages[0].tls
        assert hop.lines("STARTTLS") == []
    assert only(ended)[1].reached == ("verified" if level == "verify" else "encrypted")


@pytest.mark.parametrize("level", ["", "may", "verify"])
async def test_smtps_never_falls_back_to_clear_text(bench: Bench, level: str) -> None:  # L09, L10
    async with NextHop(tls=failing(), implicit_tls=True) as hop:
        ended = await bench.attempt(bench.work(planned(hop, level, scheme="smtps")))
    assert outcomes(ended) == LATER
    assert "the TLS handshake failed" in only(ended)[0].reply
    assert hop.commands == []


async def test_smtps_with_a_wrong_name_says_nothing_to_the_host(bench: Bench) -> None:
    async with NextHop(tls=serving("other.test"), implicit_tls=True) as hop:
        ended = await bench.attempt(bench.work(planned(hop, "verify", scheme="smtps")))
        assert outcomes(ended) == LATER
        assert hop.commands == []
    assert "for other.test and not for mx.test" in only(ended)[0].reply


# -- sessions and policies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "reused"),
    [("may", "may", True), ("may", "encrypt", False), ("encrypt", "verify", False), ("verify", "verify", True)],
)
async def test_a_kept_session_serves_only_messages_of_its_level(
    bench: Bench, first: str, second: str, reused: bool
) -> None:
    async with NextHop(tls=serving()) as hop:
        one = await bench.attempt(bench.work(planned(hop, first)))
        two = await bench.attempt(bench.work(planned(hop, second)), one.session)
        assert outcomes(two) == [DELIVERED]
        assert hop.connections == (1 if reused else 2)
        assert only(two)[1].wanted == second


async def test_a_stricter_default_is_heeded_by_the_next_message(bench: Bench) -> None:
    async with NextHop(tls=serving("other.test")) as hop:
        work = bench.work(planned(hop))
        one = await bench.attempt(work)
        assert only(one)[1].reached == "encrypted"
        bench.sender = replace(bench.sender, tls_default="verify")
        assert outcomes(await bench.attempt(work, one.session)) == LATER


async def test_a_session_with_a_host_that_is_in_the_plan_no_more_is_left(bench: Bench) -> None:
    async with NextHop() as old, NextHop() as new:
        one = await bench.attempt(bench.work(planned(old)))
        two = await bench.attempt(bench.work(planned(new)), one.session)
        assert outcomes(two) == [DELIVERED]
        assert (old.connections, new.connections) == (1, 1)
        await old.commanded("QUIT")


async def test_the_same_session_serves_another_domain_of_the_same_host(bench: Bench, hop: NextHop) -> None:
    one = await bench.attempt(bench.work(planned(hop, domain="one.test")))
    two = await bench.attempt(bench.work(planned(hop, domain="two.test")), one.session)
    assert outcomes(two) == [DELIVERED]
    assert hop.connections == 1


async def test_a_dialogue_under_tls_is_in_the_transcript(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        hop.mail = ["451 4.3.0 later"]
        transcript = (await bench.attempt(bench.work(planned(hop, "encrypt")))).results[0][2].transcript
    for line in ("> STARTTLS", "< 220 2.0.0 go", "! TLS: TLSv1.3 TLS_", "> MAIL FROM:<a@sender.test>", "451 4.3.0"):
        assert line in transcript
    assert transcript.count("> EHLO relay.test") == 2


async def test_a_server_that_closes_without_goodbye_ends_the_session(bench: Bench) -> None:
    async with NextHop(tls=serving()) as hop:
        work = bench.work(planned(hop, "encrypt"))
        one = await bench.attempt(work)
        assert one.session is not None
        await hop.stop()
        async with asyncio.timeout(5):
            while one.session.open:
                await turns(1)
        await hop.start()
        assert outcomes(await bench.attempt(work, one.session)) == [DELIVERED]


# -- the loop of the relay -------------------------------------------------------------------------------------------


def under_uvloop(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def test_it_works_under_the_loop_of_the_relay_too(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)

    async def all_ways() -> None:
        bench = Bench(ManualClock())
        bench.sender = replace(bench.sender, contexts=Contexts(str(file)))
        async with NextHop(tls=serving()) as hop:
            one = await bench.attempt(bench.work(planned(hop, "verify")))
            assert (outcomes(one), only(one)[1].reached) == ([DELIVERED], "verified")
            hop.starttls = [b"220 go\r\n250 injected\r\n"]
            assert outcomes(await bench.attempt(bench.work(planned(hop, "may")))) == LATER
        async with NextHop(tls=serving(), implicit_tls=True) as hop:
            two = await bench.attempt(bench.work(planned(hop, "verify", scheme="smtps")))
            assert (outcomes(two), only(two)[1].reached) == ([DELIVERED], "verified")
        async with NextHop(tls=failing()) as hop:
            assert outcomes(await bench.attempt(bench.work(planned(hop, "verify")))) == LATER
            three = await bench.attempt(bench.work(planned(hop, "may")))
            assert outcomes(three) == [DELIVERED]
        async with NextHop(tls=failing(), implicit_tls=True) as hop:
            assert outcomes(await bench.attempt(bench.work(planned(hop, "verify", scheme="smtps")))) == LATER
        for ended in (one, two, three):
            assert ended.session is not None
            ended.session.close()
        await turns()

    under_uvloop(all_ways())
