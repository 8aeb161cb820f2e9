"""A million queued: what is instant stays instant, and a bounce of 50,000 disturbs nobody, with 200 messages a second.

Everything is asked at the control socket, as console and scripts ask; times are those that the asker sees.
"""

import asyncio
import http.client
import json
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import procs, stock
from bench.flow import DOMAIN, Flow
from bench.load import Load
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import Sink, sinking

ROWS, RATE, CALLS = 1_000_000, 200, 300

# What is asked for (shared by the issue and the contract), in seconds.
INSTANT, DELAY, START = 0.1, 0.1, 2.0
# Ours: 100 MiB as with a short queue, and four frozen sets of a million (12 MiB each, twice that while one is sorted).
MEMORY = 200 * 2**20

# Fresh messages of today for the suspended next hop, so that there is something young in the queue.
FRESH = 1000

# Long enough that all 50,000 are leaving, and asked about, before the first of them goes, in seconds.
GRACE = 60

# A quiet stretch, and how long after an event its effects count, in seconds.
REST, AFTER = 10.0, 0.5

# A relay on the stock: its mail waits for a host that does not answer, and what flows meanwhile goes to the sink.
WAITING = """\
hostname = "relay.test"
[[listener]]
name = "default"
address = "127.0.0.1:{port}"
[delivery]
smarthost = "{nowhere}:25"
[[route]]
match = "{domain}"
target = "smtp://[127.0.0.1]:{sink}"
"""
CONFIG = f"""{WAITING}{{reports}}
[queue]
grace = "{{grace}}s"
"""
# The bounces of the bulk sender find a host that takes them, instead of staying with the rest.
TO_SINK = '[[route]]\nmatch = "{bulk}"\ntarget = "smtp://[127.0.0.1]:{sink}"\n'


class Asker(http.client.HTTPConnection):
    """A kept connection to the control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("mailtui", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(str(self.path))

    def ask(self, target: str, body: dict[str, Any] | None = None, method: str = "") -> tuple[float, bytes]:
        """Seconds until the whole answer is here, and the answer. BenchError for an error."""
        text = None if body is None else json.dumps(body).encode()
        began = time.perf_counter()
        self.request(method or ("GET" if body is None else "POST"), target, text)
        answer = self.getresponse()
        content = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise BenchError(f"million: {target}: {answer.status} {content[:200].decode(errors='replace')}")
        return took, content


@dataclass
class Report:
    """Lines of the table, and the targets that were missed."""

    missed: list[str] = field(default_factory=list)

    def calls(self, what: str, took: Sequence[float], rows: int | str, limit: float | None = INSTANT) -> None:
        """A line with percentiles in ms; p99 must stay under the limit."""
        ordered = sorted(took)
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
        wrong = limit is not None and p99 >= limit
        mark = "  MISSED" if wrong else ""
        times = f"{1000 * p50:8.1f} {1000 * p99:8.1f} {1000 * ordered[-1]:8.1f}"
        print(f"million: {what:44} {times} {rows!s:>9}{mark}", flush=True)
        if wrong:
            self.missed.append(f"{what}: p99 {1000 * p99:.0f} ms")

    def target(self, what: str, value: float, limit: float, unit: str = "ms", scale: float = 1000.0) -> None:
        wrong = value >= limit
        mark = "  MISSED" if wrong else ""
        print(f"million: {what}: {scale * value:.0f} {unit} (under {scale * limit:.0f}){mark}", flush=True)
        if wrong:
            self.missed.append(f"{what}: {scale * value:.0f} {unit}")

    def flow(self, what: str, flow: Flow, begin: float, end: float, rest: tuple[float, float] | None = None) -> None:
        """How long acceptance and delivery took; with `rest` (medians at rest), the worst delay has a target."""
        took = flow.took(begin, end)
        for name, times, usual in zip(
            ("acceptance", "delivery"), (took.accepted, took.delivered), rest or (0.0, 0.0), strict=True
        ):
            if not times:
                raise BenchError(f"million: {what}: no {name} in {end - begin:.1f} s")
            self.calls(f"{name}, {what}", times, len(times), None)
            if rest is not None:
                self.target(f"worst delay of {name}, {what}", times[-1] - usual, DELAY)


def prove(rows: int = ROWS, *, cache: Path, calls: int = CALLS, to_sink: bool = False) -> None:
    """Raises BenchError if a target is missed. `to_sink`: the 50,000 bounces are delivered, instead of staying."""
    filled = stock.stocked(cache, rows)
    report = Report()
    with procs.work_directory() as directory, sinking(directory) as sink:
        config = directory / "mailtui.toml"
        relay = Mailtui(directory, sink.port, config=config)
        reports = TO_SINK.format(bulk=stock.BULK, sink=sink.port) if to_sink else ""
        places = {"port": relay.port, "sink": sink.port, "domain": DOMAIN, "nowhere": stock.NOWHERE}
        config.write_text(CONFIG.format(reports=reports, grace=GRACE, **places))
        stock.copy(filled, relay.state)
        began = time.monotonic()
        relay.start()
        report.target("serving after start", time.monotonic() - began, START)
        try:
            _measure(report, relay, sink, directory, rows, calls)
        finally:
            relay.stop()
    if report.missed:
        raise BenchError(f"million: {len(report.missed)} missed: " + "; ".join(report.missed))


def _measure(report: Report, relay: Mailtui, sink: Sink, directory: Path, rows: int, calls: int) -> None:
    fresh = Load(relay.port, "fresh", domain="d1.test", limit=FRESH)
    asyncio.run(fresh.run())
    asker = Asker(relay.state / "control.sock")
    flow = Flow(directory, relay.port, sink, RATE)
    marks: dict[str, tuple[float, float]] = {}

    def during(name: str, work: Callable[[], Any]) -> Any:
        began = time.monotonic()
        result = work()
        marks[name] = (began, time.monotonic() + AFTER)
        return result

    during("warm-up", lambda: time.sleep(2.0))
    during("at rest", lambda: time.sleep(REST))
    print(f"million: {'':44} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'rows':>9}", flush=True)
    if calls:
        during("instant queries", lambda: _instant(report, asker, calls, rows))
    asked = during("preview of the bounce", lambda: _bounce(asker, preview=True))
    done = during("the bounce of 50,000", lambda: _bounce(asker, preview=False))
    over = marks["the bounce of 50,000"][0] + GRACE
    seconds = marks["the bounce of 50,000"][1] - marks["the bounce of 50,000"][0] - AFTER
    print(f"million: bounced {done['done']} of {asked['recipients']} in {seconds:.1f} s", flush=True)
    during("leaving", lambda: _leaving(report, asker, min(calls or 10, 100)))
    time.sleep(max(0.0, over - time.monotonic() - 1.0))
    during("the end of the grace", lambda: _wait_gone(asker, over))
    seconds = time.monotonic() - over
    reports = json.loads(asker.ask("/v1/queue/count?" + urlencode({"query": f"dest:{stock.BULK}"}))[1])
    print(f"million: gone {seconds:.1f} s after the grace, {reports['recipients']} bounces wait", flush=True)
    during("afterwards", lambda: time.sleep(3.0))
    memory = procs.high_water(relay.pid)
    flow.stop()
    procs.wait_for(lambda: not flow.missing(), 60, f"{flow.missing()} accepted messages at the sink", pause=0.2)
    rest = flow.took(*marks["at rest"])
    usual = rest.accepted[len(rest.accepted) // 2], rest.delivered[len(rest.delivered) // 2]
    for name, (begin, end) in marks.items():
        watched = name in ("the bounce of 50,000", "the end of the grace")
        report.flow(name, flow, begin, end, usual if watched else None)
    report.target("memory of the relay", memory, MEMORY, "MiB", 1 / 2**20)
    print(f"million: load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", flush=True)


def _instant(report: Report, asker: Asker, calls: int, rows: int) -> None:
    """Each instant form so many times, one after another over a kept connection."""
    rng = random.Random(2)
    page = {"limit": "50"}
    first = json.loads(asker.ask("/v1/queue?" + urlencode({"sort": "next_attempt", **page}))[1].splitlines()[0])

    def listing(query: str, **more: str) -> Callable[[], str]:
        return lambda: "/v1/queue?" + urlencode({"query": query, **page, **more})

    def counting(query: str) -> Callable[[], str]:
        return lambda: "/v1/queue/count?" + urlencode({"query": query})

    def number() -> int:
        return rng.randrange(rows)

    busy, middle = "d0.test", "d100.test"
    forms: dict[str, Callable[[], str]] = {
        "list": listing(""),
        "list --reverse": listing("", reverse="true"),
        "list --sort next_attempt": listing("", sort="next_attempt"),
        "list --sort next_attempt --reverse": listing("", sort="next_attempt", reverse="true"),
        "list dest:, the busiest": listing(f"dest:{busy}"),
        "list dest:, the busiest, next_attempt": listing(f"dest:{busy}", sort="next_attempt"),
        "list dest:, any": lambda: listing(f"dest:d{rng.randrange(stock.DESTINATIONS)}.test")(),
        "list dest: state:held": listing(f"dest:{middle} state:held"),
        "list dest: and a scanning term": listing(f'dest:{middle} reply:"greylisted"'),
        "list hop:, the busiest": listing(f"hop:{stock.hop(0)}"),
        "list hop:, any, next_attempt": lambda: listing(
            f"hop:{stock.hop(rng.randrange(stock.DESTINATIONS))}", sort="next_attempt"
        )(),
        "list state:held": listing("state:held"),
        "list state:held, next_attempt": listing("state:held", sort="next_attempt"),
        "list state:queued": listing("state:queued"),
        "list state:deferred": listing("state:deferred"),
        "list state:leaving": listing("state:leaving"),
        "list from:ADDRESS": lambda: listing(f"from:{stock.sender(number())}")(),
        "list from:@DOMAIN, 20 senders": lambda: listing(f"from:@source{rng.randrange(2500, 2700) % 2000}.test")(),
        "list from:@DOMAIN, 50,000 messages": listing(f"from:@{stock.BULK}"),
        "list from:@DOMAIN, 50,000, next_attempt": listing(f"from:@{stock.BULK}", sort="next_attempt"),
        "list to:ADDRESS": listing("to:r12345@" + _destination(asker, "r12345")),
        "list to:@DOMAIN": listing(f"to:@{middle}"),
        "list msgid:": lambda: listing(f"msgid:{stock.message_id(number())}")(),
        "list age<10m": listing("age<10m"),
        "list age>3d": listing("age>3d"),
        "list age>3d, next_attempt": listing("age>3d", sort="next_attempt"),
        "list due<5m": listing("due<5m"),
        "list due<5m, next_attempt": listing("due<5m", sort="next_attempt"),
        "list id:": listing(f"id:{first['id']}"),
        "why ID": lambda: f"/v1/queue/why/{first['id']}",
        "show ID": lambda: f"/v1/queue/messages/{first['id']}",
        "count": counting(""),
        "count from:ADDRESS": lambda: counting(f"from:{stock.sender(number())}")(),
        "status": lambda: "/v1/status",
        "shape": lambda: "/v1/shape?limit=50",
        "shape by domain": lambda: "/v1/shape?by=domain&limit=50",
        "dest list": lambda: "/v1/destinations?limit=50",
    }
    scans: dict[str, Callable[[], str]] = {
        "shape, all 5,000 destinations (a scan)": lambda: "/v1/shape?limit=0",
        "dest list, all 5,000 (a scan)": lambda: "/v1/destinations?limit=0",
    }
    for name, target in (*forms.items(), *scans.items()):
        took, found = [], 0
        for _ in range(calls if name in forms else min(calls, 10)):
            seconds, answer = asker.ask(target())
            took.append(seconds)
            found = answer.count(b"\n")
        report.calls(name, took, found, INSTANT if name in forms else None)
    sets: tuple[tuple[str, Callable[[], str], str], ...] = (
        ("set of from:ADDRESS", lambda: f"from:{stock.sender(number())}", "arrived"),
        ("set of dest:, 1,000th busiest", lambda: "dest:d1000.test", "next_attempt"),
        ("set of dest: state:held", lambda: f"dest:{middle} state:held", "arrived"),
        ("set of msgid:", lambda: f"msgid:{stock.message_id(number())}", "arrived"),
    )
    for name, query, sort in sets:
        took, found = [], 0
        for _ in range(calls):
            seconds, answer = asker.ask("/v1/sets", {"query": query(), "sort": sort})
            made = json.loads(answer)
            asker.ask(f"/v1/sets/{made['set']}", method="DELETE")
            took.append(seconds)
            found = made["count"]
        report.calls(name, took, found)
    for name, query_text, sort in (
        ("everything", "", "next_attempt"),
        ("everything", "", "arrived"),
        ("50,000", f"from:@{stock.BULK}", "arrived"),
    ):
        seconds, answer = asker.ask("/v1/sets", {"query": query_text, "sort": sort})
        made = json.loads(answer)
        report.calls(f"set of {name}, {sort} (a scan)", [seconds], made["count"], None)
        rows_of = f"/v1/sets/{made['set']}/rows"
        took = [asker.ask(f"{rows_of}?limit=50&offset={rng.randrange(made['count'])}")[0] for _ in range(calls)]
        report.calls(f"page of the set of {name}, {sort}", took, 50)


def _destination(asker: Asker, name: str) -> str:
    """Where the stock's recipient of this name lives: its domain depends on chance."""
    answer = asker.ask("/v1/queue?" + urlencode({"query": f"to:{name}@*", "limit": "1"}))[1]
    return str(json.loads(answer)["destination"]) if answer else "d0.test"


def _bounce(asker: Asker, *, preview: bool) -> dict[str, Any]:
    body = {"query": f"from:@{stock.BULK}", "preview": preview, "reason": "sent by mistake", "args": {}}
    answer: dict[str, Any] = json.loads(asker.ask("/v1/verbs/queue.bounce", body)[1])
    return answer


def _leaving(report: Report, asker: Asker, calls: int) -> None:
    """What the console asks all the time, while 50,000 are within their grace."""
    for name, target in {
        "status, 50,000 leaving": "/v1/status",
        "count, 50,000 leaving": "/v1/queue/count",
        "list, 50,000 leaving": "/v1/queue?limit=50",
        "list from:@DOMAIN, all leaving": "/v1/queue?" + urlencode({"query": f"from:@{stock.BULK}", "limit": "50"}),
        "list state:leaving, 50,000 leaving": "/v1/queue?" + urlencode({"query": "state:leaving", "limit": "50"}),
    }.items():
        took: list[float] = []
        found = 0
        began = time.monotonic()
        while len(took) < calls and time.monotonic() < began + GRACE / 8:
            seconds, answer = asker.ask(target)
            took.append(seconds)
            found = answer.count(b"\n")
        report.calls(name, took, found)


def _wait_gone(asker: Asker, over: float) -> None:
    """Until nothing is leaving any more; asks once a second, as the console's status does."""
    while True:
        status = json.loads(asker.ask("/v1/status")[1])
        if not status["queue"]["leaving"]:
            return
        if time.monotonic() > over + 600:
            raise BenchError(f"million: {status['queue']['leaving']} are leaving 600 s after the end of the grace")
        time.sleep(1.0)
