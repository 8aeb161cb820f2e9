"""2,000 slow clients against 1,000 slots: honest ones get through as if they were alone, memory and descriptors hold.

Honest clients open a connection for each message, half of them from a network that may relay and half as strangers, so
many a second as RATE says whatever they were answered. The slow ones hold on to all that they get (bench/dribble.py);
in a second round all of them do so over TLS.
"""

import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from bench import procs
from bench.load import message, reply
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import sinking

CLIENTS = 2000
SECONDS = 20.0  # under attack; half as long before and after it
RATE = 100.0  # messages a second, of both kinds together
USUAL = 0.8  # of that rate, or the senders stood still and the figures mean nothing
PATIENCE = 0.5  # for one message, from the connection to its 250: at rest it is a few ms
MEMORY = 300 * 2**20
SPARE = 20  # descriptors more than before that are no leak: kept connections to the sink, database files
RETURN = 15.0  # seconds until the descriptors of those who left are back

CONFIG = """\
hostname = "relay.test"
[[listener]]
name = "default"
address = "127.0.0.1:{port}"
tls = "starttls"
{certificate}
[[listener]]
name = "implicit"
address = "127.0.0.1:{tls_port}"
tls = "implicit"
{certificate}
[access]
networks = ["127.0.0.1/32"]
relay_domains = ["sink.test"]
recipients = "any"
[delivery]
smarthost = "smtp://[127.0.0.1]:{sink}"
[limits]
connections = 1000
"""


@dataclass
class Honest:
    """What became of the honest clients' messages; `took` in seconds from the connection to the 250."""

    name: str
    sent: int = 0
    seconds: float = 0.0  # from the first connection to the last 250
    began: float = field(default_factory=time.monotonic)
    took: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return len(self.took) / self.sent

    @property
    def rate(self) -> float:
        """Messages a second that got through."""
        return len(self.took) / (self.seconds or 1)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.took, n=100)[98] if len(self.took) > 1 else float("inf")

    def line(self) -> str:
        half = statistics.median(self.took) if self.took else float("nan")
        return (
            f"slow: {self.name}: {len(self.took)} of {self.sent} messages got through,"
            f" {self.rate:.1f} a second,"
            f" ms until the 250: p50 {1000 * half:.0f}, p99 {1000 * self.p99:.0f}"
        )


async def _honest(port: int, name: str, source: str, seconds: float, rate: float) -> Honest:
    """Send messages at a rate, each over a connection of its own."""
    seen, under_way = Honest(name), set()
    while (elapsed := time.monotonic() - seen.began) < seconds:
        if seen.sent <= elapsed * rate:
            token = f"{name.replace(' ', '-')}-{seen.sent}"
            under_way.add(asyncio.create_task(_send(port, source, seen, token)))
            seen.sent += 1
        else:
            await asyncio.sleep(0.002)
    await asyncio.wait(under_way, timeout=30)
    return seen


async def _send(port: int, source: str, seen: Honest, token: str) -> None:
    commands = ("", "EHLO client.test", "MAIL FROM:<from@source.test>", f"RCPT TO:<{token}@sink.test>", "DATA")
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            for command in commands:
                if command:
                    writer.write(f"{command}\r\n".encode())
                answer = await reply(reader)
                if answer[:1] not in b"23":
                    raise ConnectionAbortedError(answer)
            writer.write(message(token, 4096))
            answer = await reply(reader)
            if answer[:3] != b"250":
                raise ConnectionAbortedError(answer)
            ended = time.monotonic()
            seen.took.append(ended - began)
            seen.seconds = ended - seen.began
            writer.write(b"QUIT\r\n")
            await reply(reader)
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        seen.refused.append(repr(error))


def _honest_pair(relay: Mailtui, when: str, seconds: float) -> list[Honest]:
    async def both() -> list[Honest]:
        pair = await asyncio.gather(
            _honest(relay.port, f"of networks {when}", "127.0.0.1", seconds, RATE / 2),
            _honest(relay.port, f"strangers {when}", "127.2.0.1", seconds, RATE / 2),
        )
        return list(pair)

    pair = asyncio.run(both())
    for each in pair:
        print(each.line(), flush=True)
    return pair


def _descriptors(relay: Mailtui) -> int:
    return len(os.listdir(f"/proc/{relay.pid}/fd"))


def prove(clients: int = CLIENTS) -> None:
    """Raises BenchError if honest mail is lost or late, or if memory or descriptors run away."""
    for tls in (False, True):
        print(f"slow: {'over TLS' if tls else 'in plain text'}")
        _prove(clients, tls=tls)


def _certificate(directory: Path) -> str:
    """The lines of a listener that name a certificate."""
    made = trustme.CA().issue_cert("relay.test")
    made.cert_chain_pems[0].write_to_path(directory / "tls.crt")
    made.private_key_pem.write_to_path(directory / "tls.key")
    return f'certificate = "{directory}/tls.crt"\nkey = "{directory}/tls.key"'


def _prove(clients: int, *, tls: bool) -> None:
    with procs.work_directory() as directory, sinking(directory) as sink:
        config, counts = directory / "mailtui.toml", directory / "dribble"
        relay, tls_port = Mailtui(directory, sink.port, config=config), procs.free_port()
        certificate = _certificate(directory)
        config.write_text(CONFIG.format(port=relay.port, tls_port=tls_port, sink=sink.port, certificate=certificate))
        relay.start()
        try:
            seen = _honest_pair(relay, "before", SECONDS / 2)
            before = _descriptors(relay)
            spent, began = procs.cpu_seconds(relay.pid), time.monotonic()
            words: list[str] = [sys.executable, "-m", "bench.dribble", str(relay.port), str(clients), str(counts)]
            if tls:
                words.append(str(tls_port))
            attack = procs.start(words, stderr=directory / "dribble.log")

            def all_tried() -> bool:
                return counts.exists() and int(counts.read_text().split()[-1]) >= clients

            procs.wait_for(all_tried, 60, f"slow: {clients} connections are not made", pause=0.1)
            seen += _honest_pair(relay, "beside slow ones", SECONDS)
            held = [int(line.split()[0]) for line in counts.read_text().splitlines()]
            tried = int(counts.read_text().split()[-1])
            during = _descriptors(relay)
            cpu = (procs.cpu_seconds(relay.pid) - spent) / (time.monotonic() - began)
            procs.end(attack)
            back = procs.wait_for(
                lambda: _descriptors(relay) <= before + SPARE, RETURN, "slow: descriptors do not come back", pause=0.1
            )
            after = _descriptors(relay)
            seen += _honest_pair(relay, "afterwards", SECONDS / 2)
            procs.wait_for(lambda: relay.queued() == 0, 60, "slow: the queue does not become empty", pause=0.3)
            memory = procs.high_water(relay.pid)
        finally:
            relay.stop()
        sink.read()
        wanted = sum(len(each.took) for each in seen)
        arrived, doubled = len(sink.counts), sum(sink.counts.values()) - len(sink.counts)
    print(f"slow: {clients} slow clients, {tried} connections tried, {held[-1]} held at the end, {max(held)} at most")
    print(f"slow: descriptors {before} before, {during} during, {after} after (back in {back:.1f} s)")
    print(f"slow: memory at most {memory / 2**20:.0f} MiB; CPU beside slow ones {100 * cpu:.0f} % of one core")
    print(f"slow: {wanted} messages accepted, {arrived} arrived, {doubled} twice")
    _judge(seen, memory, wanted, arrived, doubled)


def _judge(seen: list[Honest], memory: int, wanted: int, arrived: int, doubled: int) -> None:
    for each in seen:
        if each.share < 0.99:
            raise BenchError(f"slow: {each.name}: {each.share:.1%} got through; {each.refused[:2]}")
        if each.rate < USUAL * RATE / 2:
            raise BenchError(f"slow: {each.name}: {each.rate:.1f} a second got through, {RATE / 2:.0f} were to be sent")
        if each.p99 > PATIENCE:
            raise BenchError(f"slow: {each.name}: one in a hundred took {each.p99:.2f} s or more")
    if memory > MEMORY:
        raise BenchError(f"slow: over {MEMORY / 2**20:.0f} MiB")
    # Whoever was cut off behind its dot was not told that its message is taken; it may have arrived all the same.
    if arrived < wanted or doubled:
        raise BenchError("slow: messages were lost or doubled")
