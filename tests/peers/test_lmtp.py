"""An LMTP server of others: a reply per recipient, over TCP and over a Unix socket."""

import pytest

from tests.end_to_end.conftest import Start
from tests.peers.content import MESSAGE, below, report, trace
from tests.peers.dovecot import Dovecot
from tests.peers.programs import mailbox


@pytest.fixture(params=["tcp", "unix"])
def target(request: pytest.FixtureRequest, dovecot: Dovecot) -> str:
    where = f"lmtp://[127.0.0.1]:{dovecot.port}" if request.param == "tcp" else f"lmtp:unix:{dovecot.socket}"
    return f'[[route]]\nmatch = "box.test"\ntarget = "{where}"\n'


async def test_a_reply_per_recipient(relay_of: Start, dovecot: Dovecot, target: str) -> None:
    first, second, small = dovecot.address(), dovecot.address(), dovecot.small_address()
    content = MESSAGE + b"filler of a line\r\n" * 200  # more than there is room for in one of the mailboxes
    async with relay_of(target) as relay:
        sender = dovecot.address()  # its report comes back the same way
        number = await relay.send([first, small, "stranger@box.test", second], sender=sender, content=content)
        for address in (first, second):
            [got] = await mailbox(dovecot.mailbox(address))
            assert below(got) == content
            theirs, _ = trace(got)
            assert b"by dovecot.test with LMTP" in theirs
        [told] = await mailbox(dovecot.mailbox(sender))
        await relay.told("delivered", 3)
        past = {each["recipient"]: each for each in await relay.history(number)}
        assert {address: past[address]["result"] for address in past} == {
            first: "delivered", second: "delivered", small: "bounced", "stranger@box.test": "bounced"
        }  # fmt: skip
        assert (past[small]["code"], past[small]["enhanced"]) == ("552", "5.2.2")
        assert (past["stranger@box.test"]["code"], past["stranger@box.test"]["enhanced"]) == ("550", "5.1.1")
        assert report(told).permanent == {small.encode(), b"stranger@box.test"}
        diagnostics = {address: each["diagnostic-code"] for address, each in report(told).recipients.items()}
        assert "Quota exceeded" in diagnostics[small] and "User doesn't exist" in diagnostics["stranger@box.test"]
        assert not list(dovecot.mailbox(small).glob("new/*"))
        assert await relay.rows() == []
