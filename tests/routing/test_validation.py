"""DNSSEC, judged by a real validating resolver (unbound) over a signed zone."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailtui.clock import SystemClock
from mailtui.routing.resolver import Resolver, Status
from mailtui.routing.router import Router
from mailtui.settings import Settings
from tests.support.dns import DnsServer

UNBOUND = shutil.which("unbound", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed: no validating resolver to ask")

ZONE = """
bank.example. 300 IN MX 10 mx.bank.example.
mx.bank.example. 300 IN A 192.0.2.1
plain.example. 300 IN A 192.0.2.2
alias.example. 300 IN CNAME bank.example.
tampered.example. 300 IN MX 10 mx.bank.example.
null.example. 300 IN MX 0 .
"""

CONFIG = """
server:
  interface: 127.0.0.1@{port}
  directory: "{directory}"
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  verbosity: 1
  do-daemonize: no
  do-ip6: no
  num-threads: 1
  do-not-query-localhost: no
  module-config: "validator iterator"
  {anchor}
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{upstream}
"""


def free_port() -> int:
    """A port on loopback that is free for UDP and TCP."""
    while True:
        with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            try:
                datagrams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@asynccontextmanager
async def validator(dns: DnsServer, anchor: str, directory: Path) -> AsyncIterator[str]:
    """unbound on loopback, asking `dns`, trusting `anchor` ("": nobody); its endpoint."""
    assert UNBOUND is not None
    port = free_port()
    config = directory / "unbound.conf"
    trust = f'trust-anchor: "{anchor}"' if anchor else ""
    config.write_text(CONFIG.format(port=port, directory=directory, anchor=trust, upstream=dns.port))
    process = await asyncio.create_subprocess_exec(
        UNBOUND, "-d", "-p", "-c", str(config), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    log = b""
    try:
        async with asyncio.timeout(20):
            while b"start of service" not in log:
                line = await process.stderr.readline()
                assert line, log.decode()
                log += line
        yield f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_plans_of_signed_domains_are_secure(tmp_path: Path) -> None:
    async with DnsServer(ZONE) as dns, validator(dns, dns.sign(), tmp_path) as endpoint:
        router = Router(Settings(), SystemClock(), Resolver([endpoint], 10.0))
        for domain, via in (
            ("bank.example", "mx"),
            ("plain.example", "implicit-mx"),
            ("alias.example", "mx"),
            ("null.example", "null-mx"),
            ("gone.example", "none"),
        ):
            plan = await router.plan("", domain, "")
            assert (plan.via, plan.dnssec) == (via, "secure"), plan


async def test_ad_is_not_believed_when_dnssec_is_off(tmp_path: Path) -> None:
    async with DnsServer(ZONE) as dns, validator(dns, dns.sign(), tmp_path) as endpoint:
        answer = await Resolver([endpoint], 10.0, "off").lookup("bank.example", "MX")
        assert (answer.status, answer.dnssec) == (Status.FOUND, "indeterminate")


async def test_tampered_answer_defers_and_is_called_bogus(tmp_path: Path) -> None:
    async with DnsServer(ZONE) as dns:
        anchor = dns.sign()
        dns.tamper("tampered.example", "MX", "5 evil.example.")
        async with validator(dns, anchor, tmp_path) as endpoint:
            plan = await Router(Settings(), SystemClock(), Resolver([endpoint], 10.0)).plan("", "tampered.example", "")
            assert (plan.outcome, plan.code, plan.enhanced, plan.dnssec) == ("defer", 451, "4.4.3", "bogus")
            assert "DNSSEC validation failed" in plan.reason


async def test_server_failure_is_not_called_bogus(tmp_path: Path) -> None:
    async with DnsServer(ZONE) as dns, validator(dns, dns.sign(), tmp_path) as endpoint:
        dns.faults["broken.example"] = "servfail"
        answer = await Resolver([endpoint], 10.0).lookup("broken.example", "MX")
        assert answer.status in (Status.SERVFAIL, Status.TIMEOUT)


async def test_unsigned_domain_is_insecure(tmp_path: Path) -> None:
    async with DnsServer(ZONE) as dns, validator(dns, "", tmp_path) as endpoint:
        plan = await Router(Settings(), SystemClock(), Resolver([endpoint], 10.0)).plan("", "bank.example", "")
        assert (plan.outcome, plan.dnssec) == ("deliver", "insecure")
