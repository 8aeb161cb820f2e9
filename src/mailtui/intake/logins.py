"""Checking passwords: in a few threads beside the loop, with a bound on how many wait.

Promises: a check costs the same for every name and every wrong password: one derivation (`verifier.derive`); when too
many wait, the next is told so at once (Busy) and costs nothing. A password that was right is remembered for a short
while, so that a client that connects for every message does not cost a derivation each time. That is safe: what is
kept is a keyed digest under a key that exists in this process only and goes with it; it holds for the very verifier
that it was checked against, so that a new password or a removed account ends it at once; a wrong password is never
remembered, so that the time of an answer tells only what the answer says too.
"""

import asyncio
import hmac
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from mailtui.clock import Clock
from mailtui.intake.throttle import Throttle
from mailtui.intake.verifier import Verifier

# Threads that derive keys: with one of them guessing passwords cannot keep the other from a client that knows its own.
THREADS = 2
# They give way to the loop: mail goes before logins. Priorities of threads are Linux's.
NICENESS = 10
# Checks that wait for a thread: about half a second of work for both.
WAITING = 64
# Seconds for which a right password is remembered, and of how many accounts.
REMEMBER, REMEMBERED = 300.0, 1000


class Busy(Exception):
    """Too many checks wait: try again later."""


class Logins:
    """Checks passwords, and counts failures (`throttle`)."""

    def __init__(self, clock: Clock) -> None:
        self.throttle = Throttle(clock)
        self.waiting = 0
        self._clock = clock
        self._key = os.urandom(32)
        self._right: OrderedDict[str, tuple[Verifier, bytes, float]] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None  # made when it is needed: most relays have no accounts

    async def check(self, name: str, verifier: Verifier, password: bytes) -> bool:
        """Whether this is the password, given as `saslprep.prepared` has it, behind `verifier`. Raises Busy."""
        digest = hmac.digest(self._key, name.encode() + b"\0" + password, "sha256")
        if self._remembers(name, verifier, digest):
            return True
        if self.waiting >= WAITING:
            raise Busy
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "login", _give_way)
        self.waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._threads, verifier.matches, password)
        finally:
            self.waiting -= 1
        if right:
            self._right[name] = (verifier, digest, self._clock.monotonic() + REMEMBER)
            self._right.move_to_end(name)
            if len(self._right) > REMEMBERED:
                self._right.popitem(last=False)
        return right

    def _remembers(self, name: str, verifier: Verifier, digest: bytes) -> bool:
        found = self._right.get(name)
        if found is None:
            return False
        if found[0] is not verifier or found[2] <= self._clock.monotonic():
            del self._right[name]
            return False
        return hmac.compare_digest(found[1], digest)

    def close(self) -> None:
        """Let go of the threads."""
        self._right.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _give_way() -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except (AttributeError, OSError):  # no such priorities here: then they do not give way
        pass
