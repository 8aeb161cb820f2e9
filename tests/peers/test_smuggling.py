"""What one client said is one message at a Postfix that takes a bare LF for a line end, or no message at all."""

import pytest

from tests.end_to_end.conftest import Start
from tests.peers.content import below
from tests.peers.postfix import Postfix
from tests.peers.programs import mailbox
from tests.support.client import Client
from tests.support.smuggling import LOOK_ALIKES

# Those of them that this very Postfix takes: the tests would be worth little if there were none.
FATAL = [LOOK_ALIKES[name] for name in ("lf.lf", "lf.crlf", "crlf.lf")]


def payload(end: bytes, victim: str) -> bytes:
    """A message that holds a look-alike of the end of data, and the transaction that an attacker wants to follow it."""
    inner = f"MAIL FROM:<admin@next.test>\r\nRCPT TO:<{victim}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx".encode()
    return b"Subject: outer\r\n\r\nouter" + end + inner + b"\r\n.\r\n"


async def talk(port: int, to: str, octets: bytes) -> int:
    """One transaction with these octets after DATA; the code of the first reply to them."""
    async with await Client.connect(port) as client:
        await client.command("EHLO client.test")
        await client.command("MAIL FROM:<ann@sender.test>")
        assert (await client.command(f"RCPT TO:<{to}>")).code == 250
        assert (await client.command("DATA")).code == 354
        await client.send(octets)
        return (await client.reply()).code


@pytest.mark.parametrize("end", FATAL, ids=repr)
async def test_without_the_relay_that_postfix_is_deceived(postfix: Postfix, end: bytes) -> None:
    to, victim = postfix.address(), postfix.address()
    await talk(postfix.port("plain"), to, payload(end, victim))
    [smuggled] = await mailbox(postfix.mailbox(victim))
    assert b"Subject: smuggled" in smuggled


@pytest.mark.parametrize("newlines", ["reject", "normalize"])
@pytest.mark.parametrize("end", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
async def test_with_the_relay_it_is_one_message_or_none(
    relay_of: Start, postfix: Postfix, end: bytes, newlines: str
) -> None:
    # M02, M03, M04, M07
    to, victim = postfix.address(), postfix.address()
    config = f'[access]\nbare_newline = "{newlines}"\n'
    config += f'[[route]]\nmatch = "*"\ntarget = "smtp://[127.0.0.1]:{postfix.port("plain")}"\n'
    async with relay_of(config) as relay:
        code = await talk(relay.port, to, payload(end, victim))
        # What comes last for both of them, over the same connection if there was one.
        await relay.send([to, victim], content=b"Subject: last\r\n\r\nx\r\n")
        [only] = await mailbox(postfix.mailbox(victim))
        assert below(only) == b"Subject: last\r\n\r\nx\r\n"
        got = await mailbox(postfix.mailbox(to), 2 if code == 250 else 1)
        subjects = [below(each).partition(b"\r\n")[0] for each in got]
        assert sorted(subjects) == [b"Subject: last"] + [b"Subject: outer"] * (code == 250)
        if code == 250:
            [outer] = [each for each in got if below(each).startswith(b"Subject: outer")]
            assert b"MAIL FROM:<admin@next.test>\r\nRCPT TO:" in outer
        assert code == 250 or code // 100 == 5


@pytest.mark.parametrize("newlines", ["reject", "normalize"])
async def test_what_comes_by_bdat_is_one_message_or_none(relay_of: Start, postfix: Postfix, newlines: str) -> None:
    # M07, X11: nobody looks for an end in a chunk, so that even the true end of DATA may stand in one.
    to, victim = postfix.address(), postfix.address()
    config = f'[access]\nbare_newline = "{newlines}"\n'
    config += f'[[route]]\nmatch = "*"\ntarget = "smtp://[127.0.0.1]:{postfix.port("plain")}"\n'
    async with relay_of(config) as relay:
        taken = 0
        async with await relay.client() as client:
            for end in (*LOOK_ALIKES.values(), b"\r\n.\r\n"):
                octets = payload(end, victim)
                await client.send(f"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<{to}>\r\n".encode())
                await client.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
                codes = [(await client.reply()).code for _ in range(3)]
                bare = set(end.replace(b"\r\n", b"")) & set(b"\r\n")
                assert codes == [250, 250, 550 if bare and newlines == "reject" else 250], end
                taken += codes[2] == 250
        await relay.send([to, victim], content=b"Subject: last\r\n\r\nx\r\n")
        [only] = await mailbox(postfix.mailbox(victim))
        assert below(only) == b"Subject: last\r\n\r\nx\r\n"
        got = [below(each) for each in await mailbox(postfix.mailbox(to), taken + 1)]
        assert len(got) == taken + 1
        outer = [each for each in got if each.startswith(b"Subject: outer")]
        assert len(outer) == taken and all(b"RCPT TO:<" + victim.encode() in each for each in outer)
