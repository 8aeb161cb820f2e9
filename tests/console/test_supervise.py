"""Attaching to a relay, starting one, and keeping it up."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailtui import paths
from mailtui.console import supervise
from mailtui.console.supervise import Child, Death, Launch, StartError, Supervisor
from tests.console import fake
from tests.console.fake import FakeRelay

PROGRAM = (sys.executable, fake.__file__)


def launch(tmp_path: Path, *extra: str, program: tuple[str, ...] = PROGRAM) -> Launch:
    return Launch(tmp_path, tmp_path / "control.sock", program=(*program, *extra))


@contextmanager
def ending(child: Child | None) -> Iterator[Child]:
    assert child is not None
    try:
        yield child
    finally:
        child.stop()


def soon(holds: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_relay_is_started_in_a_session_of_its_own_and_logs(tmp_path: Path) -> None:
    with ending(supervise.start(launch(tmp_path))) as child:
        assert supervise.answers(tmp_path / "control.sock")
        assert os.getsid(child.pid) == child.pid != os.getsid(0)
        assert "the fake relay answers" in (tmp_path / "relay.log").read_text()
        assert (tmp_path / "relay.log").stat().st_mode & 0o777 == 0o600
        # A second console attaches, and starts none.
        assert supervise.start(launch(tmp_path)) is None
    assert child.ended == 0


def test_quick_options_are_refused_when_a_relay_runs_already(tmp_path: Path) -> None:
    with ending(supervise.start(launch(tmp_path))):
        again = Launch(tmp_path, tmp_path / "control.sock", quick=("--listen", "127.0.0.1:1"))
        with pytest.raises(StartError, match="a relay runs already") as refused:
            supervise.start(again)
        assert refused.value.status == 2


def test_the_relay_of_the_machine_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SYSTEM_STATE", tmp_path)
    with pytest.raises(StartError, match="systemctl start mailtui") as refused:
        supervise.start(launch(tmp_path))
    assert refused.value.status == 3
    assert not (tmp_path / "relay.log").exists()


def test_a_relay_that_cannot_start_is_quoted_cleaned(tmp_path: Path) -> None:
    talker = "import sys; print('mailtui: port 25: \\x1b[31mpermission denied', file=sys.stderr); sys.exit(2)"
    with pytest.raises(StartError, match=re.escape("the relay did not start: port 25: �[31mpermission denied")):
        supervise.start(launch(tmp_path, program=(sys.executable, "-c", talker)))


async def test_who_loses_the_race_attaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another relay answers by the time that ours has given up."""
    first = [False]
    real = supervise.attach

    def attached(socket: Path) -> bool:
        client = real(socket)
        if client is not None:
            client.close()
        return client is not None

    monkeypatch.setattr(supervise, "answers", lambda socket: first.pop() if first else attached(socket))
    loser = (sys.executable, "-c", "import sys; sys.exit(2)")
    async with FakeRelay(tmp_path / "control.sock"):
        child = supervise.spawn(launch(tmp_path, program=loser))
        soon(lambda: child.ended is not None)
        monkeypatch.setattr(supervise, "spawn", lambda launch: child)
        assert supervise.start(launch(tmp_path, program=loser)) is None


def test_a_relay_that_dies_is_started_again_and_its_last_words_are_told(tmp_path: Path) -> None:
    wanted = launch(tmp_path)
    supervisor = Supervisor(wanted, supervise.start(wanted), pauses=(0.05,))
    supervisor.watch()
    assert supervisor.child is not None
    first = supervisor.child.pid
    (tmp_path / "relay.log").open("a").write("mailtui: the disk is on \x1b[31mfire\n")
    os.kill(first, signal.SIGKILL)
    deaths: list[Death] = []
    soon(lambda: deaths.extend(supervisor.news()) or deaths)
    assert deaths[0].status == -9 and deaths[0].words[-1] == "the disk is on �[31mfire"
    assert deaths[0].text == 'the relay died by signal 9: "the disk is on �[31mfire"; started again in 0.05 s'
    soon(lambda: supervise.answers(wanted.socket))
    with ending(supervisor.release()) as second:
        assert second.pid != first


def test_the_pause_before_a_new_start_grows(tmp_path: Path) -> None:
    wanted = launch(tmp_path, program=(sys.executable, "-c", "import sys; sys.exit(7)"))
    supervisor = Supervisor(wanted, supervise.spawn(wanted), pauses=(0.01, 0.02, 0.03))
    supervisor.watch()
    deaths: list[Death] = []
    soon(lambda: deaths.extend(supervisor.news()) or len(deaths) >= 4)
    supervisor.release()
    assert [death.again for death in deaths[:4]] == [0.01, 0.02, 0.03, 0.03]


def test_a_relay_that_was_stopped_stays_so_until_asked(tmp_path: Path) -> None:
    wanted = launch(tmp_path)
    supervisor = Supervisor(wanted, supervise.start(wanted), pauses=(0.01,))
    supervisor.watch()
    assert supervisor.child is not None and not supervisor.start_again()
    os.kill(supervisor.child.pid, signal.SIGTERM)
    deaths: list[Death] = []
    soon(lambda: deaths.extend(supervisor.news()) or deaths)
    assert deaths[0].again is None and "was stopped" in deaths[0].text
    time.sleep(0.1)
    assert not supervise.answers(wanted.socket)
    assert supervisor.start_again()
    soon(lambda: supervise.answers(wanted.socket))
    with ending(supervisor.release()):
        pass


def test_a_relay_that_somebody_else_started_meanwhile_is_only_watched(tmp_path: Path) -> None:
    wanted = launch(tmp_path)
    with ending(supervise.start(wanted)):
        loser = launch(tmp_path, program=(sys.executable, "-c", "import sys; sys.exit(2)"))
        supervisor = Supervisor(loser, supervise.spawn(loser), pauses=(0.01,))
        supervisor.watch()
        soon(lambda: supervisor.child is None)
        assert supervisor.release() is None
