"""Temporary grants: on disk before they hold, ended by the clock, for one address."""

import pytest

from mailtui.clock import ManualClock
from mailtui.intake import grants as module
from mailtui.intake.access import parse_client
from mailtui.intake.grants import LONGEST, GrantError, Grants
from mailtui.model import Control
from tests.intake.conftest import STRANGER
from tests.support.client import Client

NOW = 1_700_000_000.0


class Keeper:
    """A store that says what it was told, and when."""

    def __init__(self) -> None:
        self.rows: dict[str, Control] = {}
        self.fail = False

    async def set_control(self, kind: str, control: Control) -> None:
        if self.fail:
            raise OSError("the disk is full")
        assert kind == "grant"
        self.rows[control.name] = control

    async def unset_control(self, kind: str, name: str) -> None:
        del self.rows[name]


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def grants(clock: ManualClock, keeper: Keeper) -> Grants:
    return Grants(clock, keeper)


def holds(grants: Grants, address: str) -> bool:
    return grants.find(parse_client(address)) is not None


async def test_a_grant_holds_until_its_time_and_not_longer(grants, clock):
    await grants.grant("203.0.113.9", 60.0, "pop")
    clock.advance(59.9)
    assert holds(grants, "203.0.113.9") and not holds(grants, "203.0.113.8")
    clock.advance(0.1)
    assert not holds(grants, "203.0.113.9")
    assert grants.all() == []


async def test_a_grant_is_for_the_address_that_a_session_has(grants):  # P04
    await grants.grant("::ffff:203.0.113.9", 60.0, "pop")
    await grants.grant("[2001:DB8::1]", 60.0, "pop")
    assert holds(grants, "203.0.113.9") and holds(grants, "2001:db8::1%eth0")
    assert not holds(grants, "2001:db8::2")  # one address, no network
    assert sorted(grant.address for grant in grants.all()) == ["2001:db8::1", "203.0.113.9"]


@pytest.mark.parametrize("address", ["pop.example", "203.0.113.0/24", "", "0.0.0.0", "::", "224.0.0.1", "1.2.3"])
async def test_what_is_no_clients_address_gets_no_grant(grants, address):
    with pytest.raises(GrantError, match=r"for example 203\.0\.113\.9"):
        await grants.grant(address, 60.0, "ann")
    with pytest.raises(GrantError):
        await grants.revoke(address)


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST + 1])
async def test_a_grant_is_temporary(grants, seconds):
    with pytest.raises(GrantError, match="networks"):
        await grants.grant("203.0.113.9", seconds, "ann")


async def test_a_grant_that_cannot_be_kept_does_not_hold(grants, keeper):
    keeper.fail = True
    with pytest.raises(OSError, match="full"):
        await grants.grant("203.0.113.9", 60.0, "ann")
    assert not holds(grants, "203.0.113.9")


async def test_a_grant_is_renewed(grants, clock, keeper):
    await grants.grant("203.0.113.9", 60.0, "pop")
    clock.advance(50)
    await grants.grant("203.0.113.9", 60.0, "pop")
    clock.advance(50)
    assert holds(grants, "203.0.113.9") and len(keeper.rows) == 1


async def test_a_grant_is_taken_back_at_once(grants, keeper, clock):
    await grants.grant("203.0.113.9", 60.0, "ann")
    assert await grants.revoke("203.0.113.9")
    assert not holds(grants, "203.0.113.9") and not keeper.rows
    assert not await grants.revoke("203.0.113.9")
    await grants.grant("203.0.113.9", 60.0, "ann")
    clock.advance(61)
    assert not await grants.revoke("203.0.113.9")  # it had ended by itself


async def test_what_is_kept_is_what_was_granted(grants, keeper, clock):
    await grants.grant("203.0.113.9", 60.0, "ann", "POP login")
    await grants.grant("203.0.113.7", 30.0, "pop")
    again = Grants(clock, keeper)
    again.load([("grant", control) for control in keeper.rows.values()] + [("pause", Control("203.0.113.1", NOW))])
    assert again.all() == grants.all()
    assert [grant.address for grant in again.all()] == ["203.0.113.7", "203.0.113.9"]  # the first to end stands first
    assert (again.all()[1].by, again.all()[1].since, again.all()[1].reason) == ("ann", NOW, "POP login")


async def test_rows_of_grants_that_have_ended_go(grants, keeper, clock):
    await grants.grant("203.0.113.9", 60.0, "ann")
    await grants.grant("203.0.113.7", 90.0, "ann")
    clock.advance(60)
    await grants.tidy()
    assert list(keeper.rows) == ["203.0.113.7"] and len(grants) == 1


async def test_there_are_only_so_many(grants, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    for last in (1, 2):
        await grants.grant(f"203.0.113.{last}", 60.0, "pop")
    with pytest.raises(GrantError, match="the most there can be"):
        await grants.grant("203.0.113.3", 60.0, "pop")
    await grants.grant("203.0.113.2", 90.0, "pop")  # renewing takes no room
    clock.advance(60)
    await grants.grant("203.0.113.3", 60.0, "pop")  # in the place of one that has ended
    assert holds(grants, "203.0.113.2") and holds(grants, "203.0.113.3")


async def test_a_session_may_relay_from_its_next_message_on_and_finish_the_one_it_is_at(relay):  # U08
    one = await relay(STRANGER)
    client = await one.session()

    async def said(to: str = "x@other.example") -> int:
        return (await client.command(f"RCPT TO:<{to}>")).code

    await client.command("MAIL FROM:<a@b.example>")
    assert await said() == 554
    await one.intake.grants.grant("127.0.0.1", 60.0, "pop")
    assert await said() == 554  # the transaction goes on as it began
    await client.command("RSET")
    await client.command("MAIL FROM:<a@b.example>")
    assert await said() == 250
    one.clock.advance(60)
    assert await said("y@other.example") == 250
    await client.command("RSET")
    await client.command("MAIL FROM:<a@b.example>")
    assert await said() == 554


async def test_a_grant_is_nobody_elses(relay):
    one = await relay(STRANGER)
    await one.intake.grants.grant("127.0.0.1", 60.0, "pop")
    client = await Client.connect(one.port, source="127.0.0.2")
    await client.command("EHLO x")
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<x@other.example>")).code == 554
