"""Who reports what (RFC 3461): the next hop where it can, else the relay; and what others read in a report."""

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.conftest import Start
from tests.peers.certificates import Certificates
from tests.peers.conftest import listener
from tests.peers.content import MESSAGE, below, report
from tests.peers.dovecot import Dovecot
from tests.peers.postfix import Postfix
from tests.peers.programs import mailbox
from tests.peers.sink import Sink
from tests.support.client import Client

StartSink = Callable[..., Sink]


@pytest.fixture
def sink_of() -> Iterator[StartSink]:
    """Starts an smtp-sink with these options."""
    sinks: list[Sink] = []

    def start(*options: str) -> Sink:
        sinks.append(Sink(*options))
        return sinks[-1]

    yield start
    for sink in sinks:
        sink.stop()


def to_postfix(postfix: Postfix) -> str:
    """What is for next.test goes to this Postfix."""
    return f'[[route]]\nmatch = "next.test"\ntarget = "smtp://[localhost]:{postfix.port("plain")}"\n'


def to_sink(sink: Sink) -> str:
    return f'[[route]]\nmatch = "sink.test"\ntarget = "smtp://[127.0.0.1]:{sink.port}"\n'


async def hand_in(port: int, sender: str, to: dict[str, str], parameters: str = "") -> str:
    """Hand in MESSAGE with parameters for MAIL and for each recipient; its queue id, or what the server calls it."""
    async with await Client.connect(port) as client:
        await client.command("EHLO client.test")
        answer = await client.command(f"MAIL FROM:<{sender}> BODY=8BITMIME {parameters}".rstrip())
        assert answer.code == 250, answer
        for address, more in to.items():
            answer = await client.command(f"RCPT TO:<{address}> {more}".rstrip())
            assert answer.code == 250, answer
        assert (await client.command("DATA")).code == 354
        await client.send(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        answer = await client.reply()
        assert answer.code == 250, answer
        return answer.text.rpartition(" ")[2]


async def test_a_next_hop_with_dsn_reports_itself(relay_of: Start, postfix: Postfix) -> None:
    # N10: the next hop offers DSN, so success is its to report, and the relay says nothing.
    sender, to = postfix.address(), postfix.address()
    async with relay_of(to_postfix(postfix)) as relay:
        parameters = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;First+2BLast@origin.test"
        await hand_in(relay.port, sender, {to: parameters}, "RET=HDRS ENVID=Peers+2B1")
        [got] = await mailbox(postfix.mailbox(to))
        assert below(got) == MESSAGE
        # That Postfix sends it by its own delivery, since the sender is at home there.
        [told] = await mailbox(postfix.mailbox(sender))
        read = report(told)
        assert read.headers["From"].addresses[0].domain == "postfix.test"
        assert read.message["original-envelope-id"] == "Peers+1"
        assert read.recipients[to]["action"] == "delivered"
        assert read.recipients[to]["original-recipient"] == "rfc822;First+Last@origin.test"
        await relay.told("delivered")
        assert [past["recipient"] for past in await relay.history()] == [to]
        assert await relay.rows() == []


async def test_the_four_parameters_go_on_unchanged(relay_of: Start, sink_of: StartSink) -> None:
    # N10, N11: RET, ENVID, NOTIFY and ORCPT as given; none is invented for the one who gave none.
    sink = sink_of()
    async with relay_of(to_sink(sink)) as relay:
        to = {"a@sink.test": "NOTIFY=DELAY,FAILURE ORCPT=rfc822;A+2Bx@origin.test", "b@sink.test": ""}
        to["c@sink.test"] = "NOTIFY=NEVER"
        await hand_in(relay.port, "ann@sender.test", to, "RET=FULL ENVID=QQ+3D+2B314159")
        [got] = await sink.messages()
        head = got.decode(errors="replace").splitlines()
        [mail] = [line for line in head if line.startswith("X-Mail-Args:")]
        assert "RET=FULL" in mail and "ENVID=QQ+3D+2B314159" in mail
        first, second, third = (line for line in head if line.startswith("X-Rcpt-Args:"))
        assert first.endswith("NOTIFY=DELAY,FAILURE ORCPT=rfc822;A+2Bx@origin.test")
        assert "NOTIFY" not in second
        assert "NOTIFY=NEVER" in third


async def test_a_next_hop_without_dsn_makes_the_relay_say_relayed(
    relay_of: Start, postfix: Postfix, sink_of: StartSink
) -> None:
    # N10: `relayed`, and none of the four parameters is sent on.
    sink, sender = sink_of("-N"), postfix.address()
    async with relay_of(to_postfix(postfix) + to_sink(sink)) as relay:
        to = {"a@sink.test": "NOTIFY=SUCCESS ORCPT=rfc822;A+2Bx@origin.test", "b@sink.test": "NOTIFY=FAILURE"}
        await hand_in(relay.port, sender, to, "RET=HDRS ENVID=Peers+2B2")
        [got] = await sink.messages()
        head = got.partition(b"Received:")[0]
        for name in (b"RET=", b"ENVID", b"NOTIFY", b"ORCPT"):
            assert name not in head
        [told] = await mailbox(postfix.mailbox(sender))
        assert told.startswith(b"Return-Path: <>\r\n")  # N01
        read = report(told)
        assert read.headers["From"].addresses[0].domain == "relay.test"
        assert read.headers["Auto-Submitted"].startswith("auto-")
        assert read.message["reporting-mta"].split() == ["dns;", "relay.test"]
        assert read.message["original-envelope-id"] == "Peers+2"
        assert read.recipients.keys() == {"a@sink.test"}
        fields = read.recipients["a@sink.test"]
        assert fields["action"] == "relayed"
        assert fields["status"].startswith("2.")
        assert fields["original-recipient"].replace(" ", "") == "rfc822;A+x@origin.test"
        assert (read.temporary, read.permanent) == (set(), set())


async def test_final_delivery_by_lmtp_is_reported_as_delivered(relay_of: Start, dovecot: Dovecot) -> None:
    sender, to = dovecot.address(), dovecot.address()
    route = f'[[route]]\nmatch = "box.test"\ntarget = "lmtp://[127.0.0.1]:{dovecot.port}"\n'
    async with relay_of(route) as relay:
        await hand_in(relay.port, sender, {to: "NOTIFY=SUCCESS"})
        assert below((await mailbox(dovecot.mailbox(to)))[0]) == MESSAGE
        [told] = await mailbox(dovecot.mailbox(sender))
        assert report(told).recipients[to]["action"] == "delivered"
        assert report(told).recipients[to]["status"].startswith("2.")


async def test_a_failure_is_read_field_by_field(relay_of: Start, postfix: Postfix) -> None:
    sender = postfix.address()
    async with relay_of(to_postfix(postfix)) as relay:
        to = {
            "Nobody@next.test": "NOTIFY=FAILURE ORCPT=rfc822;No+2BBody@origin.test",
            "never@next.test": "NOTIFY=NEVER",
            "success@next.test": "NOTIFY=SUCCESS",
        }
        number = await hand_in(relay.port, sender, to, "RET=HDRS ENVID=Peers+2B3")
        [told] = await mailbox(postfix.mailbox(sender))
        await relay.told("bounced", 3)
        read = report(told)
        assert read.permanent == {b"Nobody@next.test"} or read.permanent == {b"No+Body@origin.test"}
        assert read.temporary == set()
        # N03 to N08, N13
        assert read.returned == "text/rfc822-headers"
        assert b"\r\nend\r\n" not in told
        assert read.message["original-envelope-id"] == "Peers+3"
        assert "arrival-date" in read.message
        assert read.recipients.keys() == {"Nobody@next.test"}  # N09: NEVER, and FAILURE missing
        fields = read.recipients["Nobody@next.test"]
        assert fields["original-recipient"].replace(" ", "") == "rfc822;No+Body@origin.test"
        assert (fields["action"], fields["status"]) == ("failed", "5.1.1")
        assert fields["remote-mta"].startswith("dns;")
        assert fields["diagnostic-code"].startswith("smtp; 550 5.1.1 <Nobody@next.test>: Recipient address rejected")
        assert fields["final-log-id"].startswith(number)
        assert await relay.rows() == []


async def test_a_delay_is_read_as_temporary(relay_of: Start, postfix: Postfix) -> None:
    sender = postfix.address()
    dead = '[[route]]\nmatch = "dead.test"\ntarget = "smtp://[127.0.0.1]:1"\n'
    async with relay_of(to_postfix(postfix) + dead + '[retry]\nwarn = "1m"\nschedule = ["2m"]\n') as relay:
        number = await hand_in(relay.port, sender, {"bob@dead.test": "NOTIFY=DELAY,FAILURE"})
        await relay.told("deferred")
        await relay.pass_time(600)
        [told] = await mailbox(postfix.mailbox(sender))
        read = report(told)
        fields = read.recipients["bob@dead.test"]
        assert fields["action"] == "delayed"
        assert fields["status"].startswith("4.")
        assert "will-retry-until" in fields  # N07
        assert "remote-mta" not in fields  # N06: no next hop answered
        assert read.permanent == set()
        assert (await relay.row(f"{number}.1"))["state"] == "deferred"


async def test_a_client_that_passes_dsn_on_leaves_the_report_to_the_relay(
    relay_of: Start, postfix: Postfix, certificates: Certificates, sink_of: StartSink
) -> None:
    # Postfix asks the relay, its relayhost, for the report; the relay's next hop offers no DSN.
    sink, sender = sink_of("-N"), postfix.address()
    config = listener("relayhost", "none", certificates, postfix.relayhost.number)
    async with relay_of(config + to_postfix(postfix) + to_sink(sink)) as relay:
        await hand_in(postfix.port("plain"), sender, {"bob@sink.test": "NOTIFY=SUCCESS"}, "ENVID=Peers+2B4")
        await sink.messages()
        [told] = await mailbox(postfix.mailbox(sender))
        read = report(told)
        assert read.headers["From"].addresses[0].domain == "relay.test"
        assert read.message["original-envelope-id"] == "Peers+4"
        assert read.recipients["bob@sink.test"]["action"] == "relayed"
        await relay.told("delivered", 2)
        assert len(list(postfix.mailbox(sender).glob("new/*"))) == 1
