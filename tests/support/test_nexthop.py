"""The next hop and the client do what the tests that use them believe."""

import smtplib
import ssl

import pytest
import trustme

from tests.support.client import Client, send
from tests.support.nexthop import DROP, HANG, RESET, NextHop, Pieces

BODY = b"Subject: x\r\n\r\n.dots\r\n..two\r\nend\r\n"


async def test_a_message_is_recorded_with_its_envelope_and_octets() -> None:
    async with NextHop() as hop:
        await send(hop.port, "a@sender.test", ["b@one.test", "c@two.test"], BODY, mail_options=["SIZE=40"])
        [message] = await hop.received(1)
    assert (message.sender, message.mail_parameters) == ("a@sender.test", "SIZE=40")
    assert message.recipients == ["b@one.test", "c@two.test"]
    assert message.data == BODY
    assert message.wire == b"Subject: x\r\n\r\n..dots\r\n...two\r\nend\r\n.\r\n"
    assert (hop.connections, hop.open, message.helo) == (1, 0, "client.test")


async def test_the_keywords_are_those_asked_for() -> None:
    async with NextHop(keywords=["DSN"]) as hop, await Client.connect(hop.port) as client:
        assert (await client.command("EHLO c.test")).lines == ("250-next.test", "250 DSN")


async def test_a_script_is_used_up_one_answer_a_call() -> None:
    async with NextHop() as hop, await Client.connect(hop.port) as client:
        hop.mail = ["451 4.7.1 later", "250 one\ntwo"]
        assert (await client.command("MAIL FROM:<a@b.test>")).text == "451 4.7.1 later"
        assert (await client.command("MAIL FROM:<a@b.test>")).lines == ("250-one", "250 two")
        assert (await client.command("MAIL FROM:<a@b.test>")).text == "250 2.1.0 ok"


async def test_a_fixed_answer_and_a_function_answer_every_call() -> None:
    async def slow(line: str) -> str:
        return f"252 2.5.0 {line}"

    async with NextHop() as hop, await Client.connect(hop.port) as client:
        hop.noop, hop.unknown = "450 4.0.0 no", slow
        assert [(await client.command("NOOP")).code for _ in range(3)] == [450] * 3
        assert (await client.command("VRFY x")).text == "252 2.5.0 VRFY x"


async def test_recipients_have_replies_of_their_own() -> None:
    async with NextHop() as hop:
        hop.recipients = {"no@x.test": "550 5.1.1 no such user", "later@x.test": ["451 4.7.1 greylisted"]}
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            await send(hop.port, "a@b.test", ["no@x.test", "later@x.test", "yes@x.test"], BODY)
        assert {address: code for address, (code, _) in refused.value.recipients.items()} == {
            "no@x.test": 550,
            "later@x.test": 451,
        }
        assert hop.begun[0].recipients == ["yes@x.test"]
        assert hop.begun[0].refused == ["no@x.test", "later@x.test"]
        await send(hop.port, "a@b.test", "later@x.test", BODY)
        assert [each.recipients for each in hop.messages] == [["later@x.test"]]


async def test_a_reply_in_pieces_arrives_in_pieces() -> None:
    async with NextHop() as hop, await Client.connect(hop.port) as client:
        hop.noop = [Pieces(b"25", b"0-a\r\n250", b" b\r\n")]
        await client.send(b"NOOP\r\n")
        assert await client.reader.read(100) == b"25"
        assert await client.reader.read(100) == b"0-a\r\n250"
        assert await client.reader.read(100) == b" b\r\n"


@pytest.mark.parametrize("how", [DROP, RESET])
async def test_a_connection_lost_after_the_final_dot_leaves_the_transaction_unanswered(how: object) -> None:
    async with NextHop() as hop:
        hop.dot = [how]  # type: ignore[list-item]
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            await send(hop.port, "a@b.test", "c@d.test", BODY)
        await hop.idle()
    assert [each.data for each in hop.transactions] == [BODY]
    assert hop.messages == []


async def test_a_hop_that_hangs_never_answers_and_still_stops() -> None:
    async with NextHop() as hop:
        hop.greeting = HANG
        with pytest.raises(TimeoutError):
            await Client.connect(hop.port, timeout=0.05)
        late = await Client.connect(hop.port, greeting=False)
        await hop.connected(2)
    assert await late.closed() == b""
    await late.close()


async def test_a_421_closes() -> None:
    async with NextHop() as hop:
        hop.greeting = ["421 4.3.2 not now"]
        client = await Client.connect(hop.port)
        assert client.greeting.code == 421
        assert await client.closed() == b""
        await client.close()


async def test_an_interrupted_body_gets_its_answer_and_the_end() -> None:
    async with NextHop() as hop, await Client.connect(hop.port) as client:
        hop.interrupt = (100, "421 4.3.2 going down")
        for line in ("EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"):
            await client.command(line)
        await client.send(b"x" * 60 + b"\r\n")
        await client.send(b"y" * 60 + b"\r\n")
        assert (await client.reply()).code == 421
        assert await client.closed() == b""
    assert hop.transactions == []


async def test_pipelined_commands_are_answered_in_order() -> None:
    async with NextHop() as hop, await Client.connect(hop.port) as client:
        hop.rcpt = ["550 5.1.1 no"]
        await client.send(b"EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nRSET\r\n")
        assert [(await client.reply()).code for _ in range(5)] == [250, 250, 550, 554, 250]
        assert hop.lines("rcpt") == ["RCPT TO:<x@y.test>"]


async def test_starttls_is_offered_once_and_changes_the_connection() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("next.test").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with NextHop(tls=context) as hop, await Client.connect(hop.port) as client:
        assert "250 STARTTLS" in (await client.command("EHLO c.test")).lines
        assert (await client.command("STARTTLS")).code == 220
        await client.start_tls(trusting, "next.test")
        assert "STARTTLS" not in (await client.command("EHLO c.test")).text
        await client.command("MAIL FROM:<a@b.test>")
        assert hop.begun[0].tls


async def test_a_stopped_hop_can_start_again_on_its_port() -> None:
    async with NextHop() as hop:
        port = hop.port
        await hop.stop()
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(port)
        await hop.start()
        assert hop.port == port
        async with await Client.connect(port) as client:
            assert client.greeting.code == 220
