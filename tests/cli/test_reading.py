"""The reading commands on a stopped relay: rows, exit statuses, JSON, errors in one line."""

import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Queue, Run

LIST = """
id rid recipient sender subject message_id destination next_hop state size arrived next_attempt attempts last_code
last_enhanced last_reply last_host route client user held_by expires cursor
"""


def names(text: str) -> set[str]:
    return set(text.split())


def rows(run: Run, *args: str) -> list[dict[str, Any]]:
    said = run(*args, "--json")
    assert (said.status, said.err) == (0, "")
    assert said.out.isascii()
    return [json.loads(line) for line in said.out.splitlines()]


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


def test_list_has_the_fields_of_the_contract(run: Run, queue: Queue) -> None:
    found = rows(run, "queue", "list")
    assert [set(row) for row in found] == [names(LIST)] * 4
    assert [row["rid"] for row in found] == [
        f"{queue.held}.1", f"{queue.fresh}.2", f"{queue.fresh}.1", f"{queue.hostile}.1",
    ]  # fmt: skip
    deferred = found[3]
    assert (deferred["last_code"], deferred["last_enhanced"], deferred["state"]) == ("451", "4.7.1", "deferred")
    assert deferred["next_attempt"] == "2023-11-14T22:18:20.000Z"
    assert found[0]["next_attempt"] is None
    assert found[1]["last_code"] is None


def test_list_sorts_pages_and_goes_on(run: Run, queue: Queue) -> None:
    first = rows(run, "queue", "list", "--sort", "arrived", "--reverse", "--limit", "2")
    rest = rows(run, "queue", "list", "--sort", "arrived", "--reverse", "--after", first[-1]["cursor"])
    assert [row["rid"] for row in first + rest] == [row["rid"] for row in rows(run, "queue", "list", "--reverse")]
    assert rows(run, "queue", "list", "--limit", "0") == rows(run, "queue", "list")


def test_a_negated_term_may_come_first(run: Run, queue: Queue) -> None:
    assert {row["rid"] for row in rows(run, "queue", "list", "-dest:a.test", "state:queued")} == {f"{queue.fresh}.2"}
    assert rows(run, "queue", "list", "state:queued", "-dest:a.test") == rows(
        run, "queue", "list", "-dest:a.test state:queued"
    )


def test_count(run: Run, queue: Queue) -> None:
    said = run("queue", "count", "dest:a.test", "--json")
    assert json.loads(said.out) == {"messages": 2, "recipients": 2, "bytes": 2000}
    assert "2 messages, 2 recipients" in run("queue", "count", "dest:a.test").out


def test_show_has_the_fields_of_the_contract(run: Run, queue: Queue) -> None:
    found = json.loads(run("queue", "show", queue.hostile, "--json").out)
    fields = (
        "id sender size arrived client helo user listener protocol tls requiretls subject message_id headers "
        "recipients attempts"
    )
    assert names(fields) <= set(found)
    assert [name for name, _ in found["headers"]] == ["Received", "Subject", "X"]
    assert found["headers"][1][1].endswith(" folded")
    attempt = found["attempts"][0]
    assert set(attempt) == names("rid started finished host address reused tls code enhanced reply delays")
    assert set(attempt["tls"]) == names("wanted reached protocol cipher verified_by why")
    assert set(attempt["delays"]) == names("before_queue queued connect transmit")
    with_dialogue = json.loads(run("queue", "show", queue.hostile, "--json", "--transcript").out)
    assert with_dialogue["attempts"][0]["transcript"] == "S: 220"


def test_show_raw_is_the_message_as_stored(run: Run, queue: Queue) -> None:
    said = run("queue", "show", queue.hostile, "--raw")
    assert said.out.replace("\r\n", "\n").endswith("\n\nbody \x1b[2J\n")


def test_why_of_a_stopped_relay(run: Run, queue: Queue) -> None:
    found = rows(run, "queue", "why", queue.fresh)
    assert [row["limiter"] for row in found] == ["not-running", "not-running"]
    assert set(found[0]) == names("id rid recipient state because limiter since releases next_attempt expires rule")
    assert [row["rid"] for row in rows(run, "queue", "why", f"{queue.fresh}.2")] == [f"{queue.fresh}.2"]
    assert "held by ann" in rows(run, "queue", "why", queue.held)[0]["because"]


@pytest.mark.parametrize("verb", [["queue", "show"], ["queue", "why"], ["trace"]])
def test_an_unknown_id_exits_1(run: Run, queue: Queue, verb: list[str]) -> None:
    said = run(*verb, "0000000000000")
    assert (said.status, said.out) == (1, "")
    assert one_line(said.err)


def test_what_has_left_says_so(run: Run, queue: Queue) -> None:
    said = run("queue", "show", queue.gone)
    assert said.status == 1
    assert "delivered" in said.err
    assert f"mailtui history {queue.gone}" in said.err


def test_history(run: Run, queue: Queue) -> None:
    found = rows(run, "history")
    assert [row["result"] for row in found] == ["refused", "delivered"]
    assert found[0]["id"] is None
    assert found[1]["rid"] == f"{queue.gone}.1"
    assert set(found[0]) == names(
        "id rid sender recipient subject message_id result at arrived host code enhanced reply remote_id attempts tls "
        "cursor"
    )
    assert [row["result"] for row in rows(run, "history", "dest:d.test", "--limit", "1")] == ["refused"]
    after = found[0]["cursor"]
    assert [row["result"] for row in rows(run, "history", "--after", after)] == ["delivered"]


def test_log_tells_what_the_disk_knows(run: Run, queue: Queue) -> None:
    found = rows(run, "log")
    assert [row["event"] for row in found] == ["deferred", "delivered", "refused", "stopped"]
    assert found[-1]["at"] == "2023-11-14T22:13:19.000Z"


def test_status_of_a_stopped_relay(run: Run, queue: Queue, state: Path) -> None:
    found = json.loads(run("status", "--json").out)
    assert (found["running"], found["pid"], found["state_dir"]) == (False, None, str(state))
    assert found["queue"]["recipients"] == 4
    assert found["queue"]["active"] == 0
    assert set(found["rates"]) == {f"{name}_1m" for name in names("accepted delivered deferred bounced refused")}
    assert "not running" in run("status").out
    assert run().out == run("status").out


@pytest.mark.parametrize(
    "command",
    [["queue", "list"], ["queue", "count"], ["history"], ["log"], ["status"], ["queue", "list", "state:held"]],
)
def test_a_missing_state_directory_is_an_empty_queue(run: Run, state: Path, command: list[str]) -> None:
    state.rmdir()
    assert run(*command).status == 0
    assert run(*command, "--json").status == 0
    assert not state.exists()


def test_recipients_that_a_killed_relay_had_in_hand_are_still_listed(run: Run, queue: Queue, state: Path) -> None:
    with sqlite3.connect(state / "queue.db") as connection:
        connection.execute("UPDATE recipients SET claim = 3 WHERE address = 'ann@a.test'")
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
    connection.close()
    found = rows(run, "queue", "list", "to:ann@a.test")
    assert [row["state"] for row in found] == ["queued"]


def test_a_relay_that_holds_the_lock_but_does_not_answer_exits_3(run: Run, queue: Queue, state: Path) -> None:
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        said = run("queue", "list")
    finally:
        os.close(fd)
    assert said.status == 3
    assert "--socket" in said.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["queue", "list", "--nonsense"], "No such option '--nonsense'"),
        (["queue", "list", "dest:a.test", "--nonsense=1"], "No such option '--nonsense'"),
        (["history", "--nonsense"], "No such option '--nonsense'"),
        (["queue", "list", "nonsense:1"], "dest:"),
        (["queue", "list", "word"], "dest:"),
        (["queue", "list", "--sort", "nonsense"], "next_attempt"),
        (["queue", "list", "--limit", "-1"], "--limit"),
        (["queue", "list", "--after", "nonsense"], "cursor"),
        (["queue", "show"], "Missing argument"),
        (["queue", "show", "short"], "is no queue id"),
        (["queue", "nonsense"], "No such command"),
        (["nonsense"], "No such command"),
        (["mx", "a..b"], "neither a domain nor an address"),
        (["trace", "/nonexistent"], "neither a queue id nor a file"),
        (["access", "test", "--client", "x", "--from", "a@a.test", "--to", "b@b.test"], "is no IP address"),
        (["access", "test", "--client", "192.0.2.1"], "--from"),
    ],
)
def test_a_wrong_call_exits_2_with_one_line(run: Run, queue: Queue, args: list[str], says: str) -> None:
    said = run(*args)
    assert (said.status, said.out) == (2, "")
    assert one_line(said.err)
    assert says in said.err
    assert said.err[:-1].isprintable()


def test_a_group_without_a_command_names_its_commands() -> None:
    from click.testing import CliRunner

    from mailtui.cli.app import mailtui

    result = CliRunner().invoke(mailtui, ["queue"], prog_name="mailtui")
    assert result.exit_code == 2
    assert one_line(result.stderr)
    assert "list, count, show, why" in result.stderr


def test_following_needs_a_running_relay(run: Run, queue: Queue) -> None:
    said = run("log", "--follow")
    assert said.status == 3
    assert one_line(said.err)


def test_access_test_of_a_stopped_relay(run: Run, state: Path) -> None:
    probe = ["access", "test", "--client", "203.0.113.9", "--from", "x@evil.test", "--to", "y@elsewhere.test"]
    said = run(*probe, "--json")
    found = json.loads(said.out)
    assert said.status == 1
    assert (found["verdict"], found["code"], found["enhanced"]) == ("reject", "554", "5.7.1")
    assert found["passed_over"]
    assert run(*[word.replace("203.0.113.9", "127.0.0.1") for word in probe]).status == 0
    assert "there is no listener" in run(*probe, "--listener", "nonsense").err


def test_access_test_follows_the_configuration(run: Run, state: Path) -> None:
    (state / "mailtui.toml").write_text('[access]\nnetworks = ["203.0.113.0/24"]\n')
    said = run("access", "test", "--client", "203.0.113.9", "--from", "", "--to", "y@elsewhere.test")
    assert said.status == 0
    assert "networks" in said.out


def test_mx_of_a_stopped_relay(run: Run, state: Path) -> None:
    (state / "mailtui.toml").write_text(
        '[delivery]\nsmarthost = "smtp://[192.0.2.1]:2525"\n[[route]]\nmatch = "b.test"\ntarget = "error:5.1.2 no"\n'
    )
    found = json.loads(run("mx", "a.test", "--json").out)
    assert (found["outcome"], found["via"]) == ("deliver", "smarthost")
    assert names("domain next_hop outcome via code enhanced reason dnssec hosts sts dropped") <= set(found)
    assert names("preference name addresses tls tlsa") <= set(found["hosts"][0])
    assert json.loads(run("mx", "someone@b.test", "--json").out)["outcome"] == "bounce"
    assert "smarthost" in run("mx", "a.test").out


MESSAGE = (
    b"Received: from b.test (b.test [192.0.2.2]) by c.test with ESMTPS id 2; Mon, 15 Jan 2024 10:35:00 -0500\n"
    b"Received: from a.test (a.test [192.0.2.1])\n\tby b.test with ESMTP id 1; Mon, 15 Jan 2024 10:34:00 -0500\n"
    b"Subject: x\n\nReceived: from not by a.header; Mon, 15 Jan 2024 10:34:00 -0500\n"
)


def test_trace_of_a_file_and_of_standard_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.eml").write_bytes(MESSAGE)
    found = json.loads(run("trace", str(tmp_path / "m.eml"), "--json").out)
    assert [(hop["from"], hop["by"], hop["tls"]) for hop in found["hops"]] == [
        ("a.test", "b.test", False),
        ("b.test", "c.test", True),
    ]
    assert found["hops"][1]["delay"] == 60
    assert json.loads(run("trace", "-", "--json", input=MESSAGE).out) == found
    assert "b.test" in run("trace", "-", input=MESSAGE.replace(b"\n", b"\r\n")).out


def test_trace_of_a_queued_message(run: Run, queue: Queue) -> None:
    assert len(json.loads(run("trace", queue.hostile, "--json").out)["hops"]) == 1


def test_config_check(run: Run, state: Path, tmp_path: Path) -> None:
    assert run("config", "check").status == 0
    bad = tmp_path / "bad.toml"
    bad.write_text('hostname = "x.test"\n[delivery]\nprot = 25\nport = "a"\n')
    said = run("config", "check", "--config", str(bad))
    assert said.status == 2
    assert [line.split(": ")[:3] for line in said.err.splitlines()] == [
        [str(bad), "line 3", "delivery.prot"],
        [str(bad), "line 4", "delivery.port"],
    ]
    found = json.loads(run("config", "check", "--config", str(bad), "--json").out)
    assert (found["valid"], len(found["errors"])) == (False, 2)
    said = run("mx", "a.test", "--config", str(bad))
    assert said.status == 2
    assert one_line(said.err)
    assert "1 more" in said.err


def test_config_show_says_where_values_come_from(run: Run, state: Path) -> None:
    (state / "mailtui.toml").write_text("[delivery]\nport = 26\n")
    said = run("config", "show")
    assert f"delivery.port = 26  # {state}/mailtui.toml:2\n" in said.out
    assert 'retry.expire = "5d"  # default\n' in said.out
    values = {entry["key"]: entry for entry in json.loads(run("config", "show", "--json").out)["values"]}
    assert values["delivery.port"] == {"key": "delivery.port", "value": 26, "origin": f"{state}/mailtui.toml:2"}


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "status",
        "queue",
        "queue list",
        "queue count",
        "queue show",
        "queue why",
        "mx",
        "trace",
        "history",
        "access",
        "access test",
        "log",
        "config",
        "config check",
        "config show",
    ],
)
def test_every_command_has_help_within_80_columns(command: str) -> None:
    from click.testing import CliRunner

    from mailtui.cli.app import mailtui

    result = CliRunner().invoke(mailtui, [*command.split(), "--help"], prog_name="mailtui", terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    leaf = command not in ("", "queue", "access", "config")
    assert not leaf or "Example" in result.stdout
    assert not leaf or "--state" in result.stdout
