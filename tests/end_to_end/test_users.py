"""Accounts on a running relay: over its control socket, its SMTP listeners and its queue."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailtui.config import ConfigError, parse
from mailtui.control.errors import VerbError
from mailtui.intake.verifier import Verifier
from tests.control.test_engine import ask, journal, verb
from tests.end_to_end.conftest import Live, Start, smarthost, stored
from tests.peers.certificates import Certificates
from tests.peers.conftest import port_of
from tests.peers.programs import need, run
from tests.support.client import Client
from tests.support.nexthop import NextHop

SECRET = "pencil of Ann"
VERIFIER = Verifier.make(SECRET, iterations=4096).text
OTHER = Verifier.make("another", iterations=4096).text


def b64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


def doors(certificates: Certificates) -> str:
    """A submission listener with STARTTLS, one with TLS from the first octet, and one on which AUTH is optional."""
    tls = f'certificate = "{certificates.chain}"\nkey = "{certificates.key}"\n'
    return "".join(
        f'[[listener]]\nname = "{name}"\naddress = "127.0.0.1:0"\n{more}\n'
        for name, more in (
            ("submission", f'role = "submission"\ntls = "starttls"\n{tls}'),
            ("submissions", f'role = "submission"\ntls = "implicit"\n{tls}'),
            ("open", 'auth = "optional"\nauth_without_tls = true'),
        )
    )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop, certificates: Certificates) -> AsyncIterator[Live]:
    """A relay with those listeners and the account ann."""
    async with relay_of(doors(certificates) + smarthost(hop)) as relay:
        await verb(relay, "user.add", args={"name": "Ann", "verifier": VERIFIER})
        yield relay


async def logged_in(relay: Live, name: str = "ann", password: str = SECRET, expect: int = 235) -> Client:
    client = await Client.connect(port_of(relay, "open"))
    relay.clients.append(client)
    await client.command("EHLO client.test")
    answer = await client.command("AUTH PLAIN " + b64(f"\0{name}\0{password}"))
    assert answer.code == expect, answer.text
    return client


async def submit(client: Client, to: str) -> str:
    for line in ("MAIL FROM:<ann@sender.test>", f"RCPT TO:<{to}>", "DATA"):
        assert (await client.command(line)).code in (250, 354)
    await client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
    answer = await client.reply()
    assert answer.code == 250
    return answer.text.split()[-1]


async def users(relay: Live) -> list[dict[str, Any]]:
    return await ask(relay, lambda client: client.users())


# -- other people's clients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("door", ["submission", "submissions"])
async def test_swaks_logs_in_and_its_message_goes_out(
    relay: Live, hop: NextHop, certificates: Certificates, door: str, method: str
) -> None:
    need("swaks")
    done = await run(
        "swaks", "--server", "localhost", "--port", str(port_of(relay, door)), "--helo", "client.test",
        "-tls" if door == "submission" else "-tlsc", "--tls-verify", "--tls-ca-path", str(certificates.authority),
        "--auth", method, "--auth-user", "ann", "--auth-password", SECRET,
        "--from", "ann@sender.test", "--to", "bob@dest.test", "--data", "Subject: x\n\nx\n",
    )  # fmt: skip
    if method == "CRAM-MD5":
        assert done.status == 28, done.output  # its status for a mechanism that is not offered
        return
    assert done.status == 0, done.output
    [got] = await hop.received(1)
    trace, rest = stored(got.data)
    assert b" with ESMTPSA id " in trace and b"ann" not in trace.replace(b"ann@", b"")  # U11
    assert rest.startswith(b"Date: ") and b"\r\nMessage-ID: <" in rest  # U10
    assert [(e["user"], e["mechanism"]) for e in relay.events.recent if e["event"] == "authenticated"] == [
        ("ann", method)
    ]


async def test_swaks_without_a_login_is_refused(relay: Live, certificates: Certificates) -> None:  # U09
    need("swaks")
    done = await run(
        "swaks", "--server", "localhost", "--port", str(port_of(relay, "submission")), "-tls",
        "--from", "ann@sender.test", "--to", "bob@dest.test",
    )  # fmt: skip
    assert done.status == 23 and "530 5.7.0 Authentication required" in done.output


async def test_a_relay_logs_in_at_another_by_scram_over_tls(
    relay: Live, relay_of: Start, hop: NextHop, certificates: Certificates, tmp_path: Path
) -> None:
    """Our own client against our own server: a smarthost with AUTH, as two relays in a row have it."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f"localhost ann {SECRET}\n")
    secrets.chmod(0o600)
    config = (
        f'[delivery]\nsmarthost = "smtp://[localhost]:{port_of(relay, "submission")}"\nsmarthost_auth = "ann"\n'
        f'secrets = "{secrets}"\nallow_networks = ["127.0.0.0/8"]\nprefer = "ipv4"\n'
        f'[tls]\nca_file = "{certificates.authority}"\n'
    )
    async with relay_of(config, at=tmp_path / "first") as first:
        await first.send("bob@dest.test")
        [got] = await hop.received(1)
        await first.told("delivered")
    assert got.recipients == ["bob@dest.test"]
    [told] = [e for e in relay.events.recent if e["event"] == "authenticated"]
    assert (told["user"], told["mechanism"]) == ("ann", "SCRAM-SHA-256")


async def test_smtplib_logs_in_over_tls(relay: Live, hop: NextHop, certificates: Certificates) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(certificates.authority))

    def work() -> None:
        with smtplib.SMTP_SSL("localhost", port_of(relay, "submissions"), timeout=10, context=context) as client:
            client.login("ann", SECRET)
            client.sendmail("ann@sender.test", ["bob@dest.test"], "Subject: x\n\nx\n")
        with smtplib.SMTP("localhost", port_of(relay, "submission"), timeout=10) as client:
            client.starttls(context=context)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("ann", "wrong")

    await asyncio.to_thread(work)
    await hop.received(1)


# -- what operators do -----------------------------------------------------------------------------------------------


async def test_accounts_are_listed_without_their_secrets(relay: Live) -> None:
    [row] = await users(relay)
    assert row == {"user": "ann", "since": row["since"], "quarantined": None, "reason": "", "queued": 0}
    log = await journal(relay)
    assert [(entry["event"], entry["command"], entry["text"]) for entry in log] == [
        ("user-add", "mailtui user add Ann", "ann may log in now")
    ]
    shown = repr(log) + repr(await ask(relay, lambda client: client.log(limit=100))) + repr(list(relay.events.recent))
    for part in VERIFIER.split("$")[1:]:
        assert part not in shown


async def test_access_test_says_when_nobody_can_be_that_user(relay: Live) -> None:
    async def passed(user: str) -> list[str]:
        probe = {"client": "203.0.113.9", "from": "a@b.test", "to": "c@d.test", "user": user}
        found = await ask(relay, lambda client: client.access_test(probe))
        assert found["verdict"] == "accept"
        return [row["why"] for row in found["passed_over"] if "account" in row["why"]]

    assert await passed("Ann") == []
    assert await passed("eve") == ['there is no account "eve", so no client can be it']
    await verb(relay, "user.quarantine", args={"name": "ann"}, reason="spam")
    assert await passed("ann") == ['the account "ann" is in quarantine, so no client can be it']


async def test_an_account_holds_at_once_and_after_a_restart(relay: Live, relay_of: Start, hop: NextHop) -> None:
    await (await logged_in(relay)).close()
    await verb(relay, "user.passwd", args={"name": "ann", "verifier": OTHER})
    await (await logged_in(relay, expect=535)).close()
    await (await logged_in(relay, password="another")).close()
    nobody = relay.relay.intake.accounts.verifier("eve").salt
    await relay.relay.stop(0.0)
    again = Live(relay.clock, relay.state, smarthost(hop) + _OPEN, False, "postmaster@ours.test")
    async with again:
        assert again.relay.intake.accounts.verifier("eve").salt == nobody  # U06: nor does a restart tell names apart
        await (await logged_in(again, password="another")).close()
        await verb(again, "user.remove", args={"name": "ann"})
        await (await logged_in(again, password="another", expect=535)).close()
        assert await users(again) == []


_OPEN = '[[listener]]\nname = "open"\naddress = "127.0.0.1:0"\nauth = "optional"\nauth_without_tls = true\n'


@pytest.mark.parametrize(
    ("name", "args", "says", "exit"),
    [
        ("user.add", {"name": "ann", "verifier": VERIFIER}, "ann exists already", 1),
        ("user.add", {"name": "a b", "verifier": VERIFIER}, "is no name for an account", 2),
        ("user.add", {"name": "", "verifier": VERIFIER}, "needs NAME", 2),
        ("user.add", {"name": "bob"}, "needs --verifier", 2),
        ("user.add", {"name": "bob", "verifier": "secret"}, "it is no verifier", 2),
        ("user.add", {"name": "bob", "verifier": VERIFIER.replace("4096", "1")}, "iterations", 2),
        ("user.passwd", {"name": "bob", "verifier": VERIFIER}, "there is no account bob", 1),
        ("user.remove", {"name": "bob"}, "there is no account bob", 1),
        ("user.quarantine", {"name": "bob"}, "there is no account bob", 1),
        ("user.release", {"name": "ann"}, "is not in quarantine", 1),
    ],
)
async def test_what_cannot_be_done_is_said_and_changes_nothing(
    relay: Live, name: str, args: dict[str, str], says: str, exit: int
) -> None:
    for preview in (True, False):
        with pytest.raises(VerbError, match=says) as caught:
            await verb(relay, name, args=args, preview=preview)
        assert caught.value.exit == exit
    assert [row["user"] for row in await users(relay)] == ["ann"]


async def test_the_sessions_of_a_removed_account_are_closed(relay: Live) -> None:
    client = await logged_in(relay)
    await verb(relay, "user.remove", args={"name": "ANN"})
    assert (await client.reply()).code == 421
    assert await client.closed() == b""


async def test_a_quarantine_holds_the_mail_and_its_release_gives_back_exactly_that(relay: Live, hop: NextHop) -> None:
    hop.rcpt = "451 4.7.1 greylisted"
    client = await logged_in(relay)
    ids = [await submit(client, f"r{number}@dest.test") for number in range(4)]
    await relay.told("deferred", 4)
    other = await relay.send("bob@dest.test")
    await relay.told("deferred", 5)
    await verb(relay, "queue.hold", ids[0], reason="mine")
    before = {row["rid"]: row for row in await relay.rows()}
    shown = await verb(relay, "user.quarantine", args={"name": "ann"}, reason="spam", preview=True)
    assert shown["recipients"] == 4 and shown["command"] == "mailtui user quarantine ann --reason spam"
    answer = await verb(relay, "user.quarantine", args={"name": "ann"}, reason="spam")
    assert (answer["recipients"], answer["pending"]) == (3, 0)
    assert (await client.reply()).code == 421
    await (await logged_in(relay, expect=525)).close()
    await (await logged_in(relay, password="wrong", expect=535)).close()
    held = {row["id"]: row["held_by"] for row in await relay.rows("state:held")}
    assert held[ids[0]] != "quarantine of ann" and other not in held
    assert {held[each] for each in ids[1:]} == {"quarantine of ann"}
    [row] = await users(relay)
    assert (row["reason"], row["queued"], row["quarantined"] is not None) == ("spam", 4, True)
    warnings = relay.relay.warnings()
    assert [w["text"] for w in warnings if w["code"] == "quarantine"] == ["account ann is in quarantine: spam"]
    answer = await verb(relay, "user.release", args={"name": "ann"})
    assert answer["text"] == "ann may log in again; 3 recipients are released"
    after = {row["rid"]: row for row in await relay.rows()}
    assert after == before
    await (await logged_in(relay)).close()
    assert [w for w in relay.relay.warnings() if w["code"] == "quarantine"] == []


async def test_a_quarantine_holds_after_a_restart(relay: Live, hop: NextHop) -> None:
    hop.rcpt = "451 4.7.1 greylisted"
    client = await logged_in(relay)
    await submit(client, "bob@dest.test")
    await relay.told("deferred")
    await verb(relay, "user.quarantine", args={"name": "ann"})
    await client.close()
    await relay.relay.stop(0.0)
    async with Live(relay.clock, relay.state, smarthost(hop) + _OPEN, False, "postmaster@ours.test") as again:
        await (await logged_in(again, expect=525)).close()
        assert [row["held_by"] for row in await again.rows()] == ["quarantine of ann"]
        await verb(again, "user.release", args={"name": "ann"})
        assert [row["state"] for row in await again.rows()] == ["deferred"]


async def test_who_guesses_is_among_the_warnings(relay: Live) -> None:  # U07
    for _ in range(4):
        await (await logged_in(relay, password="wrong", expect=535)).close()
    [warning] = [w for w in relay.relay.warnings() if w["code"] == "auth-failed"]
    assert "1 clients and 1 accounts" in warning["text"]
    assert relay.events.counts["auth-failed"] == 4
    rows = await ask(relay, lambda client: client.log(limit=100))
    assert [(row["user"], row["client"]) for row in rows if row["event"] == "auth-failed"] == [("ann", "127.0.0.1")] * 4


def test_a_listener_that_would_ask_for_passwords_in_plain_text_is_refused() -> None:
    for more in ('auth = "required"', 'role = "submission"'):
        with pytest.raises(ConfigError, match="asks for passwords"):
            parse(f'[[listener]]\naddress = "127.0.0.1:2525"\n{more}\n')
        parse(f'[[listener]]\naddress = "127.0.0.1:2525"\nauth_without_tls = true\n{more}\n')


async def test_the_relay_itself_may_quarantine_an_account(relay: Live) -> None:
    client = await logged_in(relay)
    relay.relay.intake.limits.quarantine("ann", "more than 5 in 1h")
    assert (await client.reply()).code == 421
    await relay.told("user-quarantine")
    [row] = await users(relay)
    assert row["quarantined"] is not None and row["reason"] == "more than 5 in 1h"
    [entry] = [entry for entry in await journal(relay) if entry["event"] == "user-quarantine"]
    assert (entry["who"], entry["reason"]) == ("mailtui", "more than 5 in 1h")


async def test_an_account_that_a_dovecot_knows_is_quarantined_and_released(relay_of: Start, tmp_path: Path) -> None:
    async with relay_of(_OPEN + f'[access]\nauth_socket = "{tmp_path / "auth"}"\n') as relay:
        await verb(relay, "user.quarantine", args={"name": "Eve"}, reason="spam")
        assert [(row["user"], row["reason"]) for row in await users(relay)] == [("eve", "spam")]
        await relay.relay.stop(0.0)
    async with Live(relay.clock, relay.state, _OPEN, False, "postmaster@ours.test") as again:
        assert again.relay.intake.accounts.quarantined == {"eve"}
        await (await logged_in(again, "eve", "", expect=501)).close()
        await (await logged_in(again, "eve", "x", expect=535)).close()  # nor is it one that has a password here
        await verb(again, "user.release", args={"name": "eve"})
        assert await users(again) == []
