"""Memory is flat: with 100 connections, and with a queue that grows because the next hop is down."""

import asyncio

from bench import procs
from bench.load import Load
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import sinking

LIMIT = 150 * 2**20  # the target at 100 connections
CONNECTIONS = 100


def prove(messages: int = 10_000, waiting: int = 30_000) -> None:
    """Raises BenchError when the relay's high-water mark passes 150 MiB."""
    relayed = _relayed(messages)
    print(f"rss: at most {relayed / 2**20:.0f} MiB with {CONNECTIONS} connections, {messages} messages relayed")
    queued = _queued(waiting)
    print(f"rss: at most {queued / 2**20:.0f} MiB with {waiting} messages waiting for a next hop that is down")
    if max(relayed, queued) > LIMIT:
        raise BenchError(f"rss: over {LIMIT / 2**20:.0f} MiB")


def _relayed(messages: int) -> int:
    with procs.work_directory() as directory, sinking(directory) as sink:
        relay = Mailtui(directory, sink.port)
        relay.start()
        try:
            _send(relay, messages)
            procs.wait_for(lambda: relay.queued() == 0, 60, "rss: the queue does not become empty", pause=0.3)
            return procs.high_water(relay.pid)
        finally:
            relay.stop()


def _queued(messages: int) -> int:
    with procs.work_directory() as directory:
        relay = Mailtui(directory, procs.free_port())
        relay.start()
        try:
            _send(relay, messages)
            if relay.queued() != messages:
                raise BenchError(f"rss: {relay.queued()} of {messages} messages are in the queue")
            return procs.high_water(relay.pid)
        finally:
            relay.stop()


def _send(relay: Mailtui, messages: int) -> None:
    load = Load(relay.port, "rss", connections=CONNECTIONS, limit=messages)
    asyncio.run(load.run())
    if len(load.accepted) != messages:
        raise BenchError(f"rss: {len(load.accepted)} of {messages} were accepted; {load.refused[:1]}")
