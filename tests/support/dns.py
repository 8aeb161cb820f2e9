"""A real DNS server on loopback, by UDP and TCP, that answers from a zone and misbehaves on request.

    async with DnsServer("example.com. 300 IN MX 10 mx.example.com.") as dns:
        resolver = Resolver([dns.endpoint], ...)

It is the authority for everything under the root: names that the zone lacks do not exist. Signed zones
(`sign`) are answered with RRSIG and NSEC, as a validating resolver needs them.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdatatype import CNAME, NSEC, RRSIG, SOA

# Appended to every zone. The last number is the TTL of negative answers.
_APEX = """
. {ttl} IN SOA ns.invalid. root.invalid. 1 3600 600 86400 {ttl}
. 3600 IN NS ns.invalid.
ns.invalid. 3600 IN A 127.0.0.1
"""

# What a name may be told to do: answer with an error code, not at all, truncated (by UDP), a CNAME without what it
# leads to, or an answer to another question.
FAULTS = ("servfail", "refused", "drop", "truncate", "unchased", "strange")


class DnsServer:
    """The server. `faults` maps a lower-case name (without the last dot) to one of FAULTS and may change at any time.

    `queries` counts what was asked, by (name, type). `gate`: clear it to hold every answer back until it is set;
    `asked` is set by every question. `ad`: set the AD bit in every answer to who asks for it, as a
    validating resolver would.
    """

    def __init__(self, zone: str = "", *, negative_ttl: int = 60, ad: bool = False) -> None:
        self.ad = ad
        self.faults: dict[str, str] = {}
        self.queries: Counter[tuple[str, str]] = Counter()
        self.tcp_queries = 0
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._negative_ttl = negative_ttl
        self._signed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.set_zone(zone)

    @property
    def endpoint(self) -> str:
        """ADDRESS:PORT, as `[dns] nameservers` takes it."""
        return f"127.0.0.1:{self.port}"

    def set_zone(self, zone: str) -> None:
        """Replace every record. Lines may be indented."""
        text = "\n".join(line.strip() for line in zone.splitlines()) + _APEX.format(ttl=self._negative_ttl)
        self.zone = dns.zone.from_text(text, origin=".", relativize=False)
        self._names = sorted(self.zone.nodes)

    def sign(self) -> str:
        """Sign the zone; the DNSKEY record in text form, for a trust anchor."""
        key = ec.generate_private_key(ec.SECP256R1())
        dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
        with self.zone.writer() as transaction:
            dns.dnssec.sign_zone(
                self.zone, transaction, keys=[(key, dnskey)], inception=time.time() - 3600, lifetime=86400
            )
        self._names = sorted(self.zone.nodes)
        self._signed = True
        return f". IN DNSKEY {dnskey.to_text()}"

    def tamper(self, name: str, rdtype: str, record: str) -> None:
        """Replace the records of a signed name and leave their signature as it was."""
        rdataset = self.zone.find_rdataset(name + ".", rdtype)
        ttl = rdataset.ttl
        self.zone.replace_rdataset(name + ".", dns.rdataset.from_text("IN", rdtype, ttl, record))

    async def __aenter__(self) -> "DnsServer":
        loop = asyncio.get_running_loop()
        server = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                server._spawn(server._answer_datagram(data, addr, self.transport))

        while True:  # until there is a port that is free for both
            self._streams = await asyncio.start_server(self._serve_stream, "127.0.0.1", 0)
            self.port: int = self._streams.sockets[0].getsockname()[1]
            try:
                self._datagrams, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", self.port))
                break
            except OSError:
                self._streams.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._datagrams.close()
        self._streams.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, addr: Any, transport: asyncio.DatagramTransport) -> None:
        query, response = await self._respond(data)
        if response is None:
            return
        if self.faults.get(_key(query)) == "truncate":
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
        limit = query.payload if query.edns >= 0 else 512
        try:
            wire = response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        transport.sendto(wire, addr)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                self.tcp_queries += 1
                _, response = await self._respond(await reader.readexactly(size))
                if response is not None:
                    wire = response.to_wire(max_size=65535)
                    writer.write(len(wire).to_bytes(2, "big") + wire)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _respond(self, data: bytes) -> tuple[dns.message.Message, dns.message.Message | None]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.queries[_key(query), dns.rdatatype.to_text(question.rdtype)] += 1
        self.asked.set()
        await self.gate.wait()
        response = dns.message.make_response(query, recursion_available=True)
        fault = self.faults.get(_key(query))
        if fault == "drop":
            return query, None
        if fault == "strange":
            response.question = [dns.rrset.RRset(dns.name.from_text("else.invalid."), 1, question.rdtype)]
        elif fault in ("servfail", "refused"):
            response.set_rcode(dns.rcode.from_text(fault))
        else:
            self._fill(response, question.name, question.rdtype, chase=fault != "unchased")
            if self.ad and query.flags & dns.flags.AD:
                response.flags |= dns.flags.AD
        return query, response

    def _fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: Any, *, chase: bool) -> None:
        for _ in range(20):  # a circle of CNAMEs ends here, as it does in any resolver
            if self._add(response.answer, name, rdtype):
                return
            alias = self.zone.get_rdataset(name, CNAME)
            if alias is None:
                break
            self._add(response.answer, name, CNAME)
            name = alias[0].target
            if not chase:
                return
        self._add(response.authority, dns.name.root, SOA)
        if name in self.zone.nodes:
            self._add(response.authority, name, NSEC)
            return
        below = [other for other in self._names if other.is_subdomain(name)]
        if not below:
            response.set_rcode(dns.rcode.NXDOMAIN)
        covering = max(other for other in self._names if other < name)
        for owner in {covering, dns.name.root}:
            self._add(response.authority, owner, NSEC)

    def _add(self, section: list[Any], name: dns.name.Name, rdtype: Any) -> bool:
        found = self.zone.get_rdataset(name, rdtype)
        if found is None:
            return False
        section.append(dns.rrset.from_rdata_list(name, found.ttl, list(found)))
        signature = self.zone.get_rdataset(name, RRSIG, rdtype) if self._signed else None
        if signature is not None:
            section.append(dns.rrset.from_rdata_list(name, signature.ttl, list(signature)))
        return True


def _key(query: dns.message.Message) -> str:
    return query.question[0].name.to_text(omit_final_dot=True).lower()
