"""10,000 messages through `mailtui serve`: none lost, none doubled, queue empty, history complete."""

import asyncio

from bench import procs
from bench.load import Load, mixed
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import sinking


def prove(messages: int = 10_000) -> None:
    """Raises BenchError if it is not so."""
    with procs.work_directory() as directory, sinking(directory) as sink:
        relay = Mailtui(directory, sink.port)
        relay.start()
        try:
            load = Load(relay.port, "through", sizes=mixed, limit=messages)
            asyncio.run(load.run())
            if len(load.accepted) != messages:
                raise BenchError(
                    f"{len(load.accepted)} of {messages} were accepted; {load.refused[:1]}\n{procs.tail(relay.log)}"
                )
            procs.wait_for(lambda: relay.queued() == 0, 60, "the queue does not become empty", pause=0.3)
            sink.read()
            history = relay.delivered()
        finally:
            relay.stop()
    lost = load.accepted - sink.counts.keys()
    doubled = [token for token, count in sink.counts.items() if count > 1]
    print(f"through: {messages} accepted, {len(lost)} lost, {len(doubled)} doubled, {len(history)} in history")
    if lost or doubled or len(history) != messages or len(set(history)) != messages:
        raise BenchError("through: messages were lost or doubled, or history does not have each once")
