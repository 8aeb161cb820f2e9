"""The watchdog ends a console whose terminal takes nothing any more, and no other one."""

import os
import signal
import subprocess
import sys

SCRIPT = """
import sys, time
from mailtui.console import terminal
terminal.LOOK = 0.05
terminal._hung_up = lambda: False
dog = terminal.Watchdog(lambda: None, stall=0.5)
dog.start()
print("up", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    if sys.argv[2] == "beating":
        dog.beat()
    time.sleep(0.02)
sys.exit(7)
"""


def console(seconds: float, loop: str) -> "subprocess.Popen[str]":
    """A process that lives so long, then exits with 7; its loop is "beating" or "stuck"."""
    arguments = [sys.executable, "-c", SCRIPT, str(seconds), loop]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_a_loop_that_stands_still_ends_the_console() -> None:
    with console(30.0, "stuck") as process:
        assert process.wait(20) == 0


def test_a_process_that_was_stopped_goes_on_where_it_was() -> None:
    with console(2.5, "beating") as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            process.wait(1.5)  # three times what the watchdog allows
        except subprocess.TimeoutExpired:
            pass
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(20) == 7
