"""Grants, probes and callouts of a whole relay: over the control socket, over a restart, before a reload."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mailtui import config
from mailtui.control.client import Client as Control
from mailtui.control.errors import VerbError
from tests.end_to_end.conftest import BASE, Live, smarthost
from tests.support.client import Client

# Strangers: nothing on loopback may relay by its address.
STRANGERS = '[access]\nnetworks = ["192.0.2.0/24"]\n'
OPEN = '[access]\nnetworks = ["192.0.2.0/24", "127.0.0.0/8"]\n'
STRANGER = {"client": "127.0.0.1", "from": "a@b.test", "to": "victim@other.test"}


async def asked(relay: Live, work: Callable[[Control], Any]) -> Any:
    """Ask on the control socket, from a thread as a command does."""

    def ask() -> Any:
        client = Control(relay.state / "control.sock")
        try:
            return work(client)
        finally:
            client.close()

    return await asyncio.to_thread(ask)


async def verb(relay: Live, order: str, /, **args: Any) -> Any:
    return await asked(relay, lambda client: client.verb(order, args=args))


async def refused(relay: Live, order: str, /, **args: Any) -> VerbError:
    with pytest.raises(VerbError) as caught:
        await verb(relay, order, **args)
    return caught.value


async def rcpt(relay: Live, to: str = "victim@other.test", sender: str = "a@b.test") -> str:
    async with await Client.connect(relay.port) as client:
        await client.command("EHLO client.test")
        await client.command(f"MAIL FROM:<{sender}>")
        return (await client.command(f"RCPT TO:<{to}>")).text


def configure(relay: Live, toml: str) -> None:
    """What the configuration file says from now on."""
    settings = config.parse(BASE.format(postmaster="postmaster@ours.test") + toml)
    relay.relay._load = lambda: settings


# -- grants ----------------------------------------------------------------------------------------------------------


async def test_a_grant_over_the_socket_survives_a_restart_and_ends_by_the_clock(relay_of, clock):
    async with relay_of(STRANGERS) as relay:
        assert (await rcpt(relay)).startswith("554 5.7.1")
        said = await verb(relay, "access.grant", ip="::ffff:127.0.0.1", **{"for": "30m"})
        assert said["command"] == "mailtui access grant ::ffff:127.0.0.1 --for 30m"
        assert (await rcpt(relay)).startswith("250")
        [row] = await asked(relay, lambda client: client.grants())
        assert row["address"] == "127.0.0.1" and row["since"] < row["until"] and row["by"]
        tested = await asked(relay, lambda client: client.access_test(STRANGER))
        assert (tested["verdict"], tested["rule"]) == ("accept", "grants")
    clock.advance(1799)
    async with relay_of(STRANGERS) as relay:
        assert (await rcpt(relay)).startswith("250")
        clock.advance(1)
        assert (await rcpt(relay)).startswith("554")
        assert await asked(relay, lambda client: client.grants()) == []
        await relay.pass_time(60)
    async with relay_of(STRANGERS) as relay:
        assert not relay.relay.grants and not [kind for kind, _ in relay.relay.store.controls if kind == "grant"]


async def test_a_grant_is_half_an_hour_unless_somebody_says(relay_of, clock):
    async with relay_of(STRANGERS) as relay:
        await verb(relay, "access.grant", ip="127.0.0.1")
        assert relay.relay.grants.all()[0].until == clock.now() + 1800


async def test_revoking_is_at_once_and_forgotten(relay_of):
    async with relay_of(STRANGERS) as relay:
        await verb(relay, "access.grant", ip="127.0.0.1")
        await verb(relay, "access.revoke", ip="127.0.0.1")
        assert (await rcpt(relay)).startswith("554")
        error = await refused(relay, "access.revoke", ip="127.0.0.1")
        assert error.exit == 1 and "has no grant" in error.text
    async with relay_of(STRANGERS) as relay:
        assert (await rcpt(relay)).startswith("554")


async def test_grants_that_cannot_be_given(relay_of):
    async with relay_of(STRANGERS) as relay:
        for args, why in (
            ({"ip": "pop.example"}, "is no IP address"),
            ({"ip": "127.0.0.1", "for": "8d"}, "at most 7 days"),
            ({"ip": "127.0.0.1", "for": "soon"}, "is not a duration"),
            ({}, "access grant needs IP"),
        ):
            error = await refused(relay, "access.grant", **args)
            assert error.exit == 2 and why in error.text
        assert len(relay.relay.grants) == 0


async def test_mail_by_a_grant_goes_out(relay_of, hop):
    async with relay_of(STRANGERS + smarthost(hop)) as relay:
        await verb(relay, "access.grant", ip="127.0.0.1")
        await relay.send()
        await hop.received(1)


# -- probes ----------------------------------------------------------------------------------------------------------


async def test_a_probe_that_fails_stops_the_reload_and_says_which(relay_of):
    async with relay_of(STRANGERS) as relay:
        said = await verb(relay, "access.probe.add", name="stranger", expect="reject", **STRANGER)
        assert said["text"] == "probe stranger is kept, and holds now"
        await verb(relay, "access.probe.add", name="ours", expect="accept", rule="networks",
                   **{**STRANGER, "client": "192.0.2.1"})  # fmt: skip
        configure(relay, OPEN)
        error = await refused(relay, "reload")
        assert error.exit == 1
        assert error.text == (
            "not reloaded, the old configuration stays: "
            "probe stranger: expects reject, and gets accept by rule networks"
        )
        assert (await rcpt(relay)).startswith("554 5.7.1")
        assert relay.relay.settings.access.networks == [*config.parse(STRANGERS).access.networks]
        relay.relay.hangup()
        await relay.told("reload-refused")
        assert "probe stranger" in relay.events.recent[-1]["text"]
        # What the probes agree with is taken over, and a probe that is gone stops nothing.
        configure(relay, STRANGERS + '[retry]\nwarn = "8h"\n')
        assert (await verb(relay, "reload"))["text"] == "the configuration was read again"
        await verb(relay, "access.probe.remove", name="stranger")
        configure(relay, OPEN)
        await verb(relay, "reload")
        assert (await rcpt(relay)).startswith("250")


async def test_probes_survive_a_restart_and_are_run(relay_of):
    async with relay_of(STRANGERS) as relay:
        await verb(relay, "access.probe.add", name="stranger", expect="reject", rule="default", **STRANGER)
    async with relay_of(OPEN) as relay:
        [row] = await asked(relay, lambda client: client.probes())
        assert {key: row[key] for key in ("name", "client", "from", "to", "expect", "rule")} == {
            "name": "stranger", "expect": "reject", "rule": "default", **STRANGER
        }  # fmt: skip
        [row] = await asked(relay, lambda client: client.run_probes())
        assert not row["holds"] and row["verdict"] == "accept" and row["rule"] == "networks"
        assert row["error"] == "expects reject by rule default, and gets accept by rule networks"


async def test_a_probe_judges_the_configuration_and_nothing_that_passes(relay_of):
    """A grant of today is no reason to refuse a reload."""
    async with relay_of(STRANGERS) as relay:
        await verb(relay, "access.probe.add", name="stranger", expect="reject", **STRANGER)
        await verb(relay, "access.grant", ip="127.0.0.1")
        assert (await rcpt(relay)).startswith("250")
        assert (await verb(relay, "reload"))["text"]


async def test_a_listener_that_goes_takes_no_probe_silently_with_it(relay_of):
    named = STRANGERS + '[[listener]]\nname = "second"\naddress = "127.0.0.1:0"\n'
    async with relay_of(named) as relay:
        await verb(relay, "access.probe.add", name="second", expect="reject", listener="second", **STRANGER)
        configure(relay, STRANGERS)
        error = await refused(relay, "reload")
        assert 'probe second: there is no listener "second" for it' in error.text


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"expect": "maybe"}, "is none of accept, reject, defer"),
        ({"expect": "reject", "rule": "nonsense"}, 'there is no rule "nonsense"; known: sender-syntax'),
        ({"expect": "reject", "client": "mail.example"}, "is no IP address"),
        ({"expect": "reject", "listener": "x"}, 'there is no listener "x"; known: default'),
        ({"expect": "reject", "cert": "abc"}, "is not a SHA-256 fingerprint"),
        ({"expect": "reject", "name": "a" * 81}, "at most 80 characters"),
        ({}, "access probe add needs --expect VERDICT"),
    ],
)
async def test_probes_that_cannot_be_asked(relay_of, args, why):
    async with relay_of(STRANGERS) as relay:
        error = await refused(relay, "access.probe.add", **{"name": "p", **STRANGER, **args})
        assert error.exit == 2 and why in error.text
        assert relay.relay.probes.all() == []
        error = await refused(relay, "access.probe.remove", name="p")
        assert error.exit == 1 and "there is no probe p" in error.text


# -- callout ---------------------------------------------------------------------------------------------------------

CALLOUT = STRANGERS + 'local_domains = ["ours.test"]\nrecipients = "callout"\n'


async def test_a_recipient_is_asked_of_the_next_hop_and_mail_goes_there(relay_of, hop):  # B02, P18
    hop.rcpt = lambda line: "250 2.1.5 ok" if "<bob@ours.test>" in line else "550 5.1.1 no such user"
    async with relay_of(CALLOUT + smarthost(hop)) as relay:
        assert await rcpt(relay, "nobody@ours.test") == "550 5.1.1 <nobody@ours.test>: Recipient unknown"
        assert await rcpt(relay, "victim@other.test") == "554 5.7.1 <victim@other.test>: Relay access denied"
        await relay.send("bob@ours.test")
        await hop.received(1)
        assert not any("other.test" in line for _, line in hop.commands)
        tested = await asked(relay, lambda client: client.access_test({**STRANGER, "to": "nobody@ours.test"}))
        assert (tested["code"], tested["rule"]) == ("550", "callout")
        fresh = await asked(relay, lambda client: client.access_test({**STRANGER, "to": "who@ours.test"}))
        assert (fresh["code"], fresh["rule"]) == ("550", "callout")  # it asks as a session does
        assert (await asked(relay, lambda client: client.status()))["warnings"] == []


async def test_a_server_that_takes_everything_stands_among_the_warnings(relay_of, hop):
    async with relay_of(CALLOUT + smarthost(hop)) as relay:
        assert (await rcpt(relay, "bob@ours.test")).startswith("250")
        [warning] = (await asked(relay, lambda client: client.status()))["warnings"]
        assert warning["code"] == "callout" and warning["text"].startswith("ours.test: ")


async def test_a_suspended_next_hop_is_not_asked(relay_of, hop):
    async with relay_of(CALLOUT + smarthost(hop)) as relay:
        await verb(relay, "dest.suspend", name="ours.test")
        assert (await rcpt(relay, "bob@ours.test")).startswith("450 4.1.1")
        assert hop.connections == 0
