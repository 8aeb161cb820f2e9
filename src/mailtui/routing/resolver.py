"""The one DNS resolver of the relay.

Promises: a look-up never raises for DNS trouble, it has a `Status`; it takes at most `timeout` seconds in all; the same
question asked while it is under way is sent once; answers are kept for the time they were published for, failures not
at all; a resolver that is dead is noticed at once (its port is closed) or left until last (it is silent).

We are a stub: a recursive resolver does the work, and its AD bit is believed only where `[dns] dnssec` allows that
(standards A25): with `auto` only when every name server is on loopback. That the loopback resolver truly validates is
not tested here.
"""

import asyncio
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from mailtui.clock import Clock, SystemClock
from mailtui.routing.nameserver import Server, label, parse_nameserver, system_nameservers

# The size of UDP answers asked for: fits an Ethernet frame and IPv6's minimum MTU, so it is never fragmented
# (DNS flag day 2020). Longer answers come by TCP.
EDNS_PAYLOAD = 1232
# A TTL of 0 would send a query a recipient; contract.md [dns] promises to honour TTLs down to this.
MIN_TTL = 1.0
# RFC 2308 section 5: one to three hours is a good limit for negative answers, a day is too long.
MAX_NEGATIVE_TTL = 3 * 3600.0
# Longer TTLs than a day exist by mistake only; a relay runs for months.
MAX_TTL = 86400.0
# MX, A and AAAA of some 5,000 destinations; an entry is about 1 KiB, so 20 MiB when full.
CACHE_SIZE = 20_000
# RFC 5321 and 1034 set no limit to CNAME chains; resolvers stop at 8 to 16 (R12).
MAX_CNAMES = 16
# An answer may hold thousands of records (64 KiB by TCP); no honest name has more than a few dozen (R12).
MAX_RECORDS = 100
# A query takes a file descriptor: at most this many at once. Waiting for a place is not part of a look-up's time.
MAX_QUERIES = 200
# A query is repeated, or sent to the next server, after this long at most, where the time limit of the look-up allows.
MAX_TRY_TIME = 3.0


class Status(StrEnum):
    """How a look-up ended."""

    FOUND = "found"
    NODATA = "no such record"  # the name exists, without records of this type
    NXDOMAIN = "no such domain"
    BAD_NAME = "not a domain name"  # a label above 63 octets, an empty label, a name above 255
    SERVFAIL = "server failure"  # no server gave an answer that can be used
    TIMEOUT = "time-out"
    BOGUS = "DNSSEC validation failed"

    @property
    def temporary(self) -> bool:
        return self in (Status.SERVFAIL, Status.TIMEOUT, Status.BOGUS)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a look-up.

    `name` and `canonical` (where the CNAMEs led) are lower-case without the last dot. `secure`: validated by a resolver
    that is believed; None if nobody can tell. `expires` is a moment of the clock's monotonic time; for a failure it is
    already past. `text` says for people how it failed, in one line.
    """

    name: str
    rdtype: str
    status: Status
    records: tuple[Any, ...] = ()  # dnspython's rdata of `rdtype`, in the order received
    canonical: str = ""
    secure: bool | None = None
    expires: float = 0.0
    text: str = ""

    @property
    def dnssec(self) -> str:
        """In the contract's words: secure | insecure | bogus | indeterminate."""
        if self.status is Status.BOGUS:
            return "bogus"
        return {True: "secure", False: "insecure", None: "indeterminate"}[self.secure]


class Resolver:
    """Look-ups by the given name servers (`parse_nameserver`; none: the system's), cached and merged.

    `timeout`: seconds a look-up may take in all. `dnssec`: trust-ad | off | auto. ValueError for a bad name server.
    """

    def __init__(
        self, nameservers: Sequence[str], timeout: float = 10.0, dnssec: str = "auto", clock: Clock | None = None
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._timeout = timeout
        addresses = [parse_nameserver(text) for text in nameservers] or system_nameservers()
        self._servers = [Server(address, port, self._clock) for address, port in addresses]
        local = all(ipaddress.ip_address(address).is_loopback for address, _ in addresses)
        self.believes_ad = dnssec == "trust-ad" or (dnssec == "auto" and local)
        self._stub = self._make_stub(dns.flags.RD | (dns.flags.AD if dnssec != "off" else 0))
        self._unchecked = self._make_stub(dns.flags.RD | dns.flags.CD)
        self._slots = asyncio.Semaphore(MAX_QUERIES)
        self._cache: OrderedDict[tuple[str, str], Answer] = OrderedDict()
        self._under_way: dict[tuple[str, str], asyncio.Task[Answer]] = {}

    @property
    def nameservers(self) -> list[str]:
        """The servers asked, as `[address]:port`."""
        return [server.label for server in self._servers]

    def _make_stub(self, flags: int) -> dns.asyncresolver.Resolver:
        stub = dns.asyncresolver.Resolver(configure=False)
        stub.use_edns(0, 0, EDNS_PAYLOAD)
        stub.flags = flags
        stub.lifetime = self._timeout
        stub.timeout = min(MAX_TRY_TIME, self._timeout / (len(self._servers) + 1))
        return stub

    def cached(self, name: str, rdtype: str) -> Answer | None:
        """A kept answer that is still good, without any I/O."""
        key = (name.lower().removesuffix("."), rdtype)
        answer = self._cache.get(key)
        if answer is None:
            return None
        if answer.expires <= self._clock.monotonic():
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return answer

    async def lookup(self, name: str, rdtype: str) -> Answer:
        """The records of `rdtype` ("MX", "A", "TLSA" ...) at `name`, which is absolute; CNAMEs are followed."""
        if (answer := self.cached(name, rdtype)) is not None:
            return answer
        key = (name.lower().removesuffix("."), rdtype)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(*key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # Who gives up waiting leaves the query to the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way; who waits for it is cancelled."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def flush(self) -> None:
        """Forget every answer."""
        self._cache.clear()

    async def _fetch(self, name: str, rdtype: str) -> Answer:
        try:
            question = dns.name.from_text(name + ".")
            if question == dns.name.root:
                raise dns.name.EmptyLabel
        except (dns.exception.DNSException, UnicodeError) as error:
            return Answer(name, rdtype, Status.BAD_NAME, text=f"not a domain name: {_clean(str(error))}")
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._resolve(name, question, rdtype)
            except TimeoutError:
                answer = self._timed_out(name, rdtype)
        if not answer.status.temporary:
            self._keep(answer)
        return answer

    def _keep(self, answer: Answer) -> None:
        self._cache[answer.name, answer.rdtype] = answer
        self._cache.move_to_end((answer.name, answer.rdtype))
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def _timed_out(self, name: str, rdtype: str) -> Answer:
        text = f"no answer within {self._timeout:g} s from {', '.join(self.nameservers)}"
        return Answer(name, rdtype, Status.TIMEOUT, text=text)

    async def _resolve(self, name: str, question: dns.name.Name, rdtype: str) -> Answer:
        """Ask, and ask on where a server gave a CNAME without what it leads to."""
        ttl, secure, seen = math.inf, True, {question}
        while True:
            step = await self._ask(question, rdtype)
            if isinstance(step, Answer):  # a failure
                return Answer(name, rdtype, step.status, text=step.text)
            status, records, canonical, step_ttl, ad, complete = step
            ttl, secure = min(ttl, step_ttl), secure and ad
            if complete:
                break
            if canonical in seen or len(seen) >= MAX_CNAMES:
                text = f"the CNAMEs of {name} lead in a circle or are more than {MAX_CNAMES}"
                return Answer(name, rdtype, Status.SERVFAIL, text=text)
            seen.add(canonical)
            question = canonical
        limit = MAX_TTL if status is Status.FOUND else MAX_NEGATIVE_TTL
        return Answer(
            name,
            rdtype,
            status,
            records,
            canonical=canonical.to_text(omit_final_dot=True).lower(),
            secure=secure if self.believes_ad else None,
            expires=self._clock.monotonic() + min(max(ttl, MIN_TTL), limit),
            text="" if status is Status.FOUND else f"{rdtype} of {name}: {status}",
        )

    async def _ask(
        self, question: dns.name.Name, rdtype: str
    ) -> Answer | tuple[Status, tuple[Any, ...], dns.name.Name, float, bool, bool]:
        """One question: (status, records, canonical name, TTL, AD, whether the CNAMEs were followed to their end)."""
        try:
            response = await self._query(self._stub, question, rdtype)
            chain = response.resolve_chaining()
        except dns.exception.Timeout:
            return self._timed_out("", rdtype)
        except dns.resolver.NoNameservers as error:
            return await self._failed(question, rdtype, error)
        except dns.exception.DNSException as error:  # YXDOMAIN and whatever else: trouble of the servers, not ours
            return Answer("", rdtype, Status.SERVFAIL, text=_clean(str(error) or type(error).__name__))
        ad = bool(response.flags & dns.flags.AD)
        if chain.answer is not None:
            records = tuple(chain.answer)
            if len(records) > MAX_RECORDS:
                records = tuple(sorted(records)[:MAX_RECORDS])  # in wire order: of MX records, the best
            return Status.FOUND, records, chain.canonical_name, chain.minimum_ttl, ad, True
        if response.rcode() == dns.rcode.NXDOMAIN:
            status, complete = Status.NXDOMAIN, True
        else:
            status, complete = Status.NODATA, not chain.cnames
        ttl = float(chain.minimum_ttl)
        if any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority):
            complete = True
        elif complete:
            ttl = MIN_TTL  # RFC 2308 section 5: without SOA it should not be kept at all
        return status, (), chain.canonical_name, ttl, ad, complete

    async def _query(
        self, stub: dns.asyncresolver.Resolver, question: dns.name.Name, rdtype: str
    ) -> dns.message.QueryMessage:
        """The response, also of NXDOMAIN. Raises what dnspython raises for the rest."""
        # `resolve` copies the list before its first await, so look-ups do not disturb one another.
        stub.nameservers = [*sorted(self._servers, key=Server.is_suspect)]
        try:
            answer = await stub.resolve(question, rdtype, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            response = error.response(question)  # type: ignore[no-untyped-call]
            assert isinstance(response, dns.message.QueryMessage)
            return response
        return answer.response

    async def _failed(self, question: dns.name.Name, rdtype: str, error: dns.resolver.NoNameservers) -> Answer:
        """SERVFAIL and the like, told apart from a failed validation by asking again without one (CD, RFC 4035)."""
        text = "; ".join(dict.fromkeys(_describe(*item) for item in error.kwargs.get("errors", ())))
        text = text or "no name server gave an answer"
        if self.believes_ad and any(item[3] == "SERVFAIL" for item in error.kwargs.get("errors", ())):
            try:
                await self._query(self._unchecked, question, rdtype)
            except (dns.exception.DNSException, TimeoutError):
                pass
            else:
                return Answer("", rdtype, Status.BOGUS, text=f"DNSSEC validation failed: {text}")
        return Answer("", rdtype, Status.SERVFAIL, text=text)


def _describe(_server: str, _tcp: bool, port: int, what: object, response: dns.message.Message | None) -> str:
    """One failure of one server, for people."""
    address = _server.partition(":")[2].rpartition("@")[0]
    server = label(address, port)
    if isinstance(what, ConnectionRefusedError):
        return f"{server} refuses connections: no resolver runs there"
    if isinstance(what, dns.exception.Timeout):
        return f"no answer from {server}"
    text = str(what) or type(what).__name__
    if response is not None:
        text += "".join(f" ({extended.to_text()})" for extended in response.extended_errors()[:2])
    return f"{_clean(text)} from {server}"


def _clean(text: str) -> str:
    """What came from a server, fit for a log line: printable ASCII, one line, at most 200 characters."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200]
