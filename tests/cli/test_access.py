"""`mailtui access` on the command line, against a stopped relay and against a running one."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailtui.cli.app import mailtui
from mailtui.queue.tables import controls
from tests.cli.conftest import NOW, Run, Said
from tests.queue.filled import Filled

STRANGER = ("--client", "203.0.113.9", "--from", "a@a.example", "--to", "victim@b.example")

CONFIG = """
hostname = "relay.test"
[[listener]]
name = "mx"
address = "127.0.0.1:2525"
[[listener]]
name = "submission"
address = "127.0.0.1:2587"
role = "submission"
auth_without_tls = true
[access]
networks = ["192.0.2.0/24"]
local_domains = ["ours.test"]
recipients = "any"
sender_domains = ["ours.test"]
"""


@pytest.fixture
def configured(state: Path) -> Path:
    file = state / "mailtui.toml"
    file.write_text(CONFIG)
    return file


def keep(state: Path, kind: str, *rows: tuple[str, dict[str, object], float | None]) -> None:
    """Rows of a kind as the relay keeps them: name, value, end."""
    filled = Filled(state)
    for name, value, until in rows:
        row = (kind, name, json.dumps(value), NOW - 60, until, "ann", "why \x1b[2J")
        filled.connection.execute(controls.SET, row)
    filled.meta("clean", 1)
    filled.connection.close()


def test(run: Run, *options: str) -> dict[str, object]:
    said = run("access", "test", "--json", *options)
    found: dict[str, object] = json.loads(said.out)
    assert said.status == (0 if found["verdict"] == "accept" else 1)
    return found


test.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "code", "rule"),
    [
        ((), "554", "default"),
        (("--client", "192.0.2.1"), "553", "sender-domain"),
        (("--client", "192.0.2.1", "--from", "x@ours.test"), "250", "networks"),
        (("--client", "192.0.2.1", "--from", ""), "250", "networks"),
        (("--user", "ann", "--from", "x@ours.test"), "250", "users"),
        (("--user", "ann", "--tls", "--listener", "submission"), "553", "sender-domain"),
        (("--client", "192.0.2.1", "--from", "x@ours.test", "--listener", "submission"), "530", "authentication"),
        (("--user", "ann", "--from", "x@ours.test", "--listener", "submission"), "250", "users"),
        (("--cert", "AB:" * 31 + "AB"), "554", "default"),
        (("--helo", "ours.test"), "554", "default"),
        (("--to", "x@ours.test", "--listener", "mx"), "250", "local-domains"),
        (("--to", ""), "501", "recipient-syntax"),
    ],
)
def test_every_option_of_access_test_without_a_relay(run, configured, options, code, rule):
    found = test(run, *STRANGER, *options)
    assert (found["code"], found["rule"]) == (code, rule)


def test_access_test_says_when_nobody_can_be_that_user(run, configured):
    asked = ("--user", "Ann", "--from", "x@ours.test", "--listener", "submission")
    found = test(run, *STRANGER, *asked)
    doubt = {"rule": "authentication", "why": 'there is no account "Ann", so no client can be it'}
    assert (found["code"], found["rule"], found["passed_over"][0]) == ("250", "users", doubt)
    run("user", "add", "ann", "--password-stdin", input=b"x\n")
    known = test(run, *STRANGER, *asked)
    assert known["passed_over"] == found["passed_over"][1:]
    run("user", "quarantine", "ann", "--reason", "spam")
    doubt["why"] = 'the account "ann" is in quarantine, so no client can be it'
    assert test(run, *STRANGER, *asked)["passed_over"][0] == doubt
    assert "is in quarantine" in run("access", "test", *STRANGER, *asked).out
    assert "quarantine" not in run("access", "test", *STRANGER).out


def test_access_test_knows_of_accounts_that_are_elsewhere_only_their_quarantine(run, configured):
    configured.write_text(CONFIG + 'auth_socket = "/run/dovecot/auth"\n')
    asked = ("--user", "ann", "--from", "x@ours.test", "--listener", "submission")
    assert all("account" not in passed["why"] for passed in test(run, *STRANGER, *asked)["passed_over"])
    run("user", "quarantine", "ann", "--reason", "spam")
    assert "is in quarantine" in test(run, *STRANGER, *asked)["passed_over"][0]["why"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--cert", "nonsense"), "is not a SHA-256 fingerprint"),
        (("--listener", "x"), 'there is no listener "x"; known: mx, submission'),
        (("--client", "mail.example"), "is no IP address"),
    ],
)
def test_what_access_test_cannot_ask(run, configured, options, says):
    said = run("access", "test", *STRANGER, *options)
    assert said.status == 2 and says in said.err and len(said.err.splitlines()) == 1


def test_no_known_way_makes_an_open_relay(run, configured):  # P07 to P14, P16
    said = run("access", "check")
    assert said == Said(0, "528 ways tried as 203.0.113.9: all are refused.\n", "")
    said = run("access", "check", "--client", "192.0.2.1", "--json")
    found = json.loads(said.out)
    assert said.status == 1 and found["tried"] == 528
    # Who may relay may do so by an address, and by nothing that only looks like one.
    assert {row["rule"] for row in found["accepted"]} == {"networks"}
    assert {row["to"].rpartition("@")[2] for row in found["accepted"]} <= {
        "elsewhere.example", "elsewhere.example>", "relay.test", "localhost", "[127.0.0.1]", "[IPv6:::1]"
    }  # fmt: skip


def test_grants_of_a_stopped_relay(run, state, configured):
    keep(state, "grant", ("203.0.113.9", {}, NOW + 60), ("203.0.113.8", {}, NOW - 1))
    said = run("access", "grants", "--json")
    [row] = [json.loads(line) for line in said.out.splitlines()]
    assert row == {"address": "203.0.113.9", "until": "2023-11-14T22:14:20.000Z", "by": "ann",
                   "since": "2023-11-14T22:12:20.000Z", "reason": row["reason"]}  # fmt: skip
    assert "\x1b" not in row["reason"]
    assert test(run, *STRANGER, "--from", "a@ours.test")["rule"] == "grants"
    assert test(run, *STRANGER, "--client", "203.0.113.8")["rule"] == "default"
    shown = run("access", "grants").out
    assert shown.splitlines()[0].split() == ["ADDRESS", "LEFT", "UNTIL", "BY", "REASON"] and "1m" in shown


def test_nothing_is_granted_or_saved_where_there_is_no_state(run):
    assert run("access", "grants").out == "No address has a grant.\n"
    assert run("access", "probe", "list").out == "No probe is saved.\n"
    assert run("access", "probe", "run") == Said(0, "No probe is saved.\n", "")
    for command in (("grants",), ("probe", "list"), ("probe", "run")):
        assert run("access", *command, "--json") == Said(0, "", "")


PROBE = {"client": "203.0.113.9", "sender": "<>", "recipient": "victim@b.example", "expect": "reject"}


def test_probes_of_a_stopped_relay(run, state, configured):
    keep(state, "probe", ("stranger", PROBE, None))
    [row] = [json.loads(line) for line in run("access", "probe", "list", "--json").out.splitlines()]
    assert (row["name"], row["from"], row["expect"], row["by"]) == ("stranger", "<>", "reject", "ann")
    assert run("access", "probe", "run") == Said(0, "ok   stranger: reject by rule default\n1 asked, 0 failed.\n", "")
    wrong = {**PROBE, "rule": "networks", "expect": "accept"}
    keep(state, "probe", ("stranger", PROBE, None), ("wrong", wrong, None))
    said = run("access", "probe", "run")
    assert (
        said.status == 1 and "FAIL wrong: expects accept by rule networks, and gets reject by rule default" in said.out
    )
    rows = [json.loads(line) for line in run("access", "probe", "run", "--json").out.splitlines()]
    assert [(row["name"], row["holds"]) for row in rows] == [("stranger", True), ("wrong", False)]


def test_config_check_asks_the_probes(run, state, configured):
    keep(state, "probe", ("stranger", PROBE, None))
    assert run("config", "check").status == 0
    configured.write_text(CONFIG.replace('"192.0.2.0/24"', '"203.0.113.0/24"'))
    said = run("config", "check")
    assert said.status == 1
    assert said.err == "probe stranger: expects reject, and gets accept by rule networks\n"
    found = json.loads(run("config", "check", "--json").out)
    assert found["valid"] is True and found["probes"] == [said.err.strip()]
    configured.write_text("nonsense")
    assert run("config", "check").status == 2


@pytest.mark.parametrize(
    "command",
    [
        ("grant", "203.0.113.9"),
        ("revoke", "203.0.113.9"),
        ("probe", "add", "p", *STRANGER, "--expect", "reject"),
        ("probe", "remove", "p"),
    ],
)
def test_what_changes_something_needs_a_running_relay(run, command):
    said = run("access", *command)
    assert said.status == 3 and "needs a running relay" in said.err


@contextmanager
def serving(state: Path) -> Iterator[None]:
    """A relay in a process of its own."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "mailtui", "serve", "--state", str(state), "--listen", "127.0.0.1:0",
               "--hostname", "relay.test"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as relay:
        try:
            asyncio.run(_answers(state / "control.sock"))
            yield
        finally:
            relay.terminate()
            assert relay.wait(20) == 0


async def _answers(path: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(str(path))
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def test_the_commands_against_a_running_relay():
    with tempfile.TemporaryDirectory(prefix="mailtui-") as short, serving(Path(short, "s")):

        def mail(*args: str) -> Said:
            result = CliRunner().invoke(mailtui, [*args, "--state", str(Path(short, "s"))], prog_name="mailtui")
            return Said(result.exit_code, result.stdout, result.stderr)

        said = mail("access", "grant", "203.0.113.9", "--for", "30m", "--reason", "pop")
        assert said.status == 0 and said.out.startswith("203.0.113.9 may relay for 30m, until ")
        assert json.loads(mail("access", "grants", "--json").out)["address"] == "203.0.113.9"
        assert mail("access", "test", *STRANGER).status == 0
        assert mail("access", "revoke", "203.0.113.9").status == 0
        assert mail("access", "revoke", "203.0.113.9").status == 1
        assert mail("access", "test", *STRANGER).status == 1
        assert mail("access", "probe", "add", "p", *STRANGER, "--from", "", "--expect", "reject").status == 0
        row = json.loads(mail("access", "probe", "list", "--json").out)
        assert (row["name"], row["from"]) == ("p", "<>")
        assert mail("access", "probe", "run").status == 0
        assert mail("reload").status == 0
        assert mail("access", "probe", "remove", "p").status == 0
        assert mail("access", "probe", "remove", "p").status == 1
