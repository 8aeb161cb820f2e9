"""Clients that others wrote, against the intake."""

import asyncio
import re
import shutil
import smtplib

import pytest

from tests.intake.conftest import STRANGER


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode("utf-8", "replace")
    assert process.returncode == 0, output
    return output


needs_smtp_source = pytest.mark.skipif(shutil.which("smtp-source") is None, reason="Postfix's smtp-source is missing")
needs_swaks = pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is missing")


@needs_smtp_source
@pytest.mark.parametrize("options", [("-d",), (), ("-d", "-r", "5"), ("-d", "-l", "400000")])
async def test_smtp_source(relay, options):
    one = await relay()
    await run(
        "smtp-source", *options, "-N", "-s", "5", "-m", "50", "-f", "a@b.example", "-t", "c@d.example",
        f"inet:127.0.0.1:{one.port}",
    )  # fmt: skip
    assert len(one.queue.messages) == 50
    assert len({message.id for message in one.queue.messages}) == 50
    assert all(len(message.recipients) == (5 if "-r" in options else 1) for message in one.queue.messages)


@needs_swaks
@pytest.mark.parametrize("pipeline", [(), ("--pipeline",)])
async def test_swaks(relay, pipeline):
    one = await relay()
    output = await run(
        "swaks", *pipeline, "--server", "127.0.0.1", "--port", str(one.port), "--helo", "swaks.test",
        "--from", "a@b.example", "--to", "c@d.example,e@f.example", "--header", "Subject: from swaks", "--body", ".\nx",
    )  # fmt: skip
    assert re.search(r"250 2\.0\.0 queued as [0-9A-Z]{13}", output)
    assert one.queue.messages[0].envelope.subject == "from swaks"
    assert [recipient.address for recipient in one.queue.messages[0].recipients] == ["c@d.example", "e@f.example"]
    assert b"\r\n\r\n.\r\nx\r\n" in one.queue.body()


@needs_swaks
async def test_swaks_sees_the_refusal(relay):
    one = await relay(STRANGER)
    process = await asyncio.create_subprocess_exec(
        "swaks", "--server", "127.0.0.1", "--port", str(one.port), "--from", "a@b.example", "--to", "x@other.example",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert "<** 554 5.7.1 <x@other.example>: Relay access denied" in output
    assert not one.queue.messages


async def test_smtplib(relay):
    one = await relay()

    def send() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", one.port, timeout=10) as client:
            client.ehlo("smtplib.test")
            assert client.has_extn("pipelining") and client.esmtp_features["size"] == "52428800"
            return client.sendmail("a@b.example", ["c@d.example", "bad"], "Subject: x\r\n\r\n.\r\n..\r\n")

    refused = await asyncio.to_thread(send)
    assert list(refused) == ["bad"] and refused["bad"][0] == 501
    assert one.queue.body() == b"Subject: x\r\n\r\n.\r\n..\r\n"
