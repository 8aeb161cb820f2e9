"""Reading beside the loop: a thread with a reader of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mailtui.queue.read import Reader

T = TypeVar("T")


class ReadingThread:
    """One read at a time, `deadline` seconds each. The reader is opened with the first one, in the thread."""

    def __init__(self, name: str, state_dir: Path, deadline: float) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._state_dir = state_dir
        self._deadline = deadline
        self._reader: Reader | None = None

    async def read(self, work: Callable[[Reader], T]) -> T:
        """The result of `work`. FileNotFoundError if there is no queue, QueryTimeout after the deadline."""
        return await self.run(lambda: work(self._opened()))

    async def run(self, work: Callable[[], T]) -> T:
        """Work that opens the queue by itself."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Wait for what is being read, and close the reader."""
        self._executor.shutdown(wait=True)
        if self._reader is not None:
            self._reader.close()

    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._state_dir, deadline=self._deadline)
        return self._reader
