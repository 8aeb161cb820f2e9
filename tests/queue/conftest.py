"""What the tests of the reader share: a database filled row by row, and a reader of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailtui.queue.read import Reader
from tests.queue.filled import Filled


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """Empty; modules whose tests all read the same mail have one of their own by this name."""
    return Filled(tmp_path)


@pytest.fixture
def reader(filled: Filled) -> Iterator[Reader]:
    """Reads `filled`, whichever that is."""
    reader = Reader(filled.state_dir)
    yield reader
    reader.close()
