"""Accounts that a Dovecot knows: what it is asked, what its answers mean, and what happens without one."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mailtui.intake import dovecot
from mailtui.model import Account
from tests.intake.conftest import Relay
from tests.intake.test_auth import OPTIONAL, account, b64, plain, scram

HANDSHAKE = "VERSION\t1\t2\nSPID\t7\nCUID\t9\nCOOKIE\tabc\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nDONE\n"


class Fake:
    """The socket of an auth service. `answer` makes its line from the request's words; None: it closes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handshake = HANDSHAKE
        self.answer: Callable[[list[str]], str | None] = self.as_accounts
        self.asked: list[list[str]] = []
        self.silent = asyncio.Event()
        self.quiet = False

    def as_accounts(self, words: list[str]) -> str:
        name, password = base64.b64decode(words[-1].removeprefix("resp=")).split(b"\0")[1:]
        right = (name.lower(), password) == (b"ann", b"secret")
        return "OK\t1\tuser=Ann\tnologin\n" if right else f"FAIL\t1\tuser={name.decode()}\n"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"VERSION\t1\t1\n"
        assert (await reader.readline()).startswith(b"CPID\t")
        writer.write(self.handshake.encode())
        if not self.handshake.endswith("DONE\n"):
            return writer.close()
        line = await reader.readline()
        if line:
            self.asked.append(line.decode().rstrip("\n").split("\t"))
            answer = self.answer(self.asked[-1])
            if self.quiet:
                await self.silent.wait()
            if answer is not None:
                writer.write(answer.encode())
        return writer.close()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    fake = Fake(tmp_path / "auth")
    server = await asyncio.start_unix_server(fake.talk, fake.path)
    yield fake
    fake.silent.set()
    server.close()


def with_socket(path: Path) -> str:
    return OPTIONAL + f'[access]\nnetworks = []\nauth_socket = "{path}"\n'


@pytest.fixture
async def one(relay, fake: Fake) -> Relay:
    started: Relay = await relay(with_socket(fake.path))
    return started


async def test_who_dovecot_knows_gets_in_under_the_name_that_it_says(one: Relay, fake: Fake) -> None:
    client = await one.session()
    offered = await client.command("EHLO client.test")
    assert any(line.endswith("AUTH PLAIN LOGIN") for line in offered.lines)
    assert (await client.command(plain("ANN", "secret"))).code == 235
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250
    [words] = fake.asked
    assert words[:4] == ["AUTH", "1", "PLAIN", "service=smtp"]
    assert {"nologin", "rip=127.0.0.1", "lip=127.0.0.1"} < set(words) and "secured" not in words
    assert words[-1] == "resp=" + b64("\0ann\0secret")
    assert [e["user"] for e in one.told("authenticated")] == ["ann"]
    client = await one.session()
    for line, code in (("AUTH LOGIN", 334), (b64("ann"), 334), (b64("secret"), 235)):
        assert (await client.command(line)).code == code


async def test_scram_is_not_offered_and_our_own_accounts_are_not_asked(one: Relay, fake: Fake) -> None:
    one.intake.accounts.put(account("bob", "ours"))
    assert (await scram(await one.session(), "bob", "ours")).text.startswith("504 5.5.4")
    assert (await (await one.session()).command(plain("bob", "ours"))).text == (
        "535 5.7.8 Authentication credentials invalid"
    )
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("FAIL\t1\tuser=ann\n", "535 5.7.8"),
        ("FAIL\t1\tuser=ann\tauthz\n", "535 5.7.8"),
        ("FAIL\t1\tuser=ann\tuser_disabled\tcode=user_disabled\n", "535 5.7.8"),
        ("FAIL\t1\tuser=ann\ttemp\n", "454 4.7.0"),
        ("FAIL\t1\tuser=ann\tcode=temp_fail\n", "454 4.7.0"),
        ("OK\t1\n", "454 4.7.0"),
        ("OK\t1\tuser=\n", "454 4.7.0"),
        ("OK\t2\tuser=ann\n", "454 4.7.0"),
        ("CONT\t1\t\n", "454 4.7.0"),
        ("nonsense\n", "454 4.7.0"),
        ("\n", "454 4.7.0"),
        ("x" * 40000 + "\n", "454 4.7.0"),
        ("OK\t1\tuser=ann", "454 4.7.0"),  # it hangs up before the end of the line
        (None, "454 4.7.0"),
    ],
)
async def test_only_a_clear_yes_lets_in_and_only_a_clear_no_counts(
    one: Relay, fake: Fake, answer: str | None, code: str
) -> None:  # U03
    fake.answer = lambda words: answer
    client = await one.session()
    assert (await client.command(plain("ann", "x"))).text.startswith(code)
    assert len(one.told("auth-failed")) == (code == "535 5.7.8")
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("RCPT TO:<c@d.example>")).code == 554


@pytest.mark.parametrize(
    "handshake",
    ["VERSION\t2\t0\nDONE\n", HANDSHAKE.replace("PLAIN", "OTHER"), "", "MECH\nDONE\n", "\n" * 3, HANDSHAKE[:-1]],
)
async def test_a_socket_that_speaks_something_else_lets_nobody_in(one: Relay, fake: Fake, handshake: str) -> None:
    fake.handshake = handshake
    assert (await (await one.session()).command(plain("ann", "secret"))).text.startswith("454 4.7.0")
    assert fake.asked == []


async def test_a_socket_that_is_silent_or_gone_is_told_to_the_log_and_not_to_the_client(
    relay, fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dovecot, "TIMEOUT", 0.05)
    fake.quiet = True
    for path, why in ((fake.path, "no answer within"), (tmp_path / "none", "No such file")):
        one = await relay(with_socket(path))
        answer = await (await one.session()).command(plain("ann", "secret"))
        assert answer.text == "454 4.7.0 Temporary authentication failure"
        [told] = one.told("auth-unavailable")
        assert why in told["text"] and str(path) in told["text"] and "secret" not in repr(told)


async def test_what_a_client_says_cannot_become_another_request(one: Relay, fake: Fake) -> None:
    client = await one.session()
    for name in ("a\tb", "a\nAUTH\t2", "a\x01t"):
        assert (await client.command(plain(name, "x"))).code in (535, 421)
    assert fake.asked == []  # SASLprep forbids control characters: nobody is asked
    client = await one.session()
    await client.command(plain("a=b", "c\u00fcd"))
    assert fake.asked[0][-1] == "resp=" + b64("\0a=b\0c\u00fcd") and len(fake.asked) == 1


async def test_a_user_of_dovecot_can_be_quarantined(one: Relay, fake: Fake) -> None:
    one.intake.accounts.put(Account("ann", "", 0.0, 1.0))
    assert (await (await one.session()).command(plain("ann", "secret"))).text.startswith("525 5.7.13")
    assert (await (await one.session()).command(plain("ann", "x"))).text.startswith("535 5.7.8")


async def test_a_reload_takes_over_another_socket(one: Relay, fake: Fake) -> None:
    from mailtui import config

    one.intake.accounts.put(account())
    toml = with_socket(fake.path)
    before = one.intake.dovecot
    await one.intake.apply(config.parse(toml))
    assert one.intake.dovecot is before
    await one.intake.apply(config.parse(toml.replace("auth_socket", "#")))
    assert one.intake.dovecot is None
    assert (await scram(await one.session())).code == 235
