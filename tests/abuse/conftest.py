"""The intake of tests/intake, attacked: the same fixtures, on the loop that the relay is shipped with."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.intake.conftest import relay, tls_files, wire

__all__ = ["relay", "tls_files", "wire"]  # fixtures that are shared with the tests of intake


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
