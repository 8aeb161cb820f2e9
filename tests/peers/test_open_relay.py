"""nmap's smtp-open-relay asks a relay in 16 ways to send mail for a stranger; it may find none that works."""

from pathlib import Path

from tests.end_to_end.conftest import Live, Start
from tests.peers.programs import need, run


async def scan(relay: Live) -> str:
    """What the script says. The `+` runs it on a port that is none of SMTP's."""
    need("nmap")
    done = await run(
        "nmap", "-Pn", "-n", "-p", str(relay.port), "--script", "+smtp-open-relay", "-vv", "127.0.0.1"
    )  # fmt: skip
    assert done.status == 0 and "smtp-open-relay:" in done.output, done.output
    return done.output


async def test_a_stranger_finds_no_way(relay_of: Start, tmp_path: Path) -> None:  # P16
    # Our own name is a domain of ours too, so that no form is refused for naming a domain that we do not know.
    known = tmp_path / "recipients"
    known.write_text("x@ours.example\npostmaster@relay.test\n")
    config = f'[access]\nnetworks = []\nlocal_domains = ["ours.example", "relay.test"]\nrecipients = "{known}"\n'
    async with relay_of(config) as relay:
        assert "Server doesn't seem to be an open relay, all tests failed" in await scan(relay)
        assert await relay.rows() == []


async def test_the_script_finds_what_is_open(relay_of: Start) -> None:
    async with relay_of("") as relay:  # where loopback may relay
        assert "Server is an open relay (" in await scan(relay)
