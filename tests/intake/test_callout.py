"""Recipients verified by their next hop: what its replies mean, what is remembered, what a client is told meanwhile.

B and P numbers: the project's list of requirements. How the next hop is asked: tests/delivery/test_asking.py.
"""

import asyncio
import io
import socket
import struct
from collections.abc import Sequence

import pytest

from mailtui.address import Mailbox, parse_mailbox
from mailtui.clock import ManualClock
from mailtui.events import Events
from mailtui.intake import callout as module
from mailtui.intake.callout import BELIEVED, EXISTS_GOOD, LIMIT, UNKNOWN_GOOD, UNSURE_GOOD, Callout
from mailtui.model import Reply
from tests.intake.conftest import TOML, Relay, until
from tests.support.client import Client

OURS = TOML + (
    '[access]\nnetworks = []\nlocal_domains = ["ours.example"]\nrelay_domains = ["customer.example"]\n'
    'recipients = "callout"\n[mail]\npostmaster = "root@ours.example"\n'
)

OK = Reply(250, "2.1.5", "ok")
NO_USER = Reply(550, "5.1.1", "no such user")
LATER = Reply(451, "4.7.1", "greylisted")
SILENCE = Reply(0, "", "cannot connect to [192.0.2.1]:25: timed out")
RANDOM = "x-nobody"


class Hop:
    """A next hop: replies by address; `random` to the address that nobody has. While `gate` is not set it is silent."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.random = NO_USER
        self.asked: list[tuple[str, ...]] = []
        self.open = 0
        self.peak = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, addresses: Sequence[str], destination: str) -> Sequence[Reply]:
        assert all(address.rpartition("@")[2].lower() == destination for address in addresses)
        self.asked.append(tuple(addresses))
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await self.gate.wait()
        finally:
            self.open -= 1
        return [self.random if a.startswith(RANDOM) else self.replies.get(a, OK) for a in addresses]

    @property
    def about(self) -> list[str]:
        """The recipients that were asked about."""
        return [addresses[0] for addresses in self.asked]


def box(text: str) -> Mailbox:
    return parse_mailbox(text.encode())


ANN = box("ann@ours.example")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events(clock: ManualClock) -> Events:
    return Events(clock, io.StringIO())


@pytest.fixture
async def hop() -> Hop:
    return Hop()


@pytest.fixture
async def callout(clock: ManualClock, events: Events, hop: Hop):
    made = Callout(clock, events, hop, token=lambda: RANDOM)
    yield made
    await made.close()


async def says(callout: Callout, mailbox: Mailbox = ANN) -> str:
    """The refusal; "" if it exists."""
    known = await callout.ask(mailbox)
    return str(known.refusal) if known.refusal is not None else ""


UNSURE = "450 4.1.1 The recipient's server gives no answer, try again later"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (OK, ""),
        (Reply(251, "", "will forward"), ""),
        (NO_USER, "550 5.1.1 Recipient unknown"),
        (Reply(550, "", "who?"), "550 5.1.1 Recipient unknown"),
        (Reply(553, "5.1.3", "bad"), "550 5.1.1 Recipient unknown"),
        (Reply(552, "5.2.2", "mailbox full"), "550 5.2.2 The recipient's server refuses mail for it"),
        (Reply(554, "5.7.1", "we do not like 192.0.2.1"), UNSURE),  # says nothing of the recipient
        (LATER, UNSURE),
        (Reply(421, "4.3.2", "closing"), UNSURE),
        (SILENCE, UNSURE),
    ],
)
async def test_what_a_reply_means(callout, hop, reply, told):  # B02
    hop.replies["ann@ours.example"] = reply
    assert await says(callout) == told


@pytest.mark.parametrize(
    ("reply", "good"), [(OK, EXISTS_GOOD), (NO_USER, UNKNOWN_GOOD), (LATER, UNSURE_GOOD), (SILENCE, UNSURE_GOOD)]
)
async def test_an_answer_is_kept_for_its_time(callout, hop, clock, reply, good):
    hop.replies["ann@ours.example"] = reply
    first = await says(callout)
    clock.advance(good - 0.1)
    assert callout.known(ANN) is not None
    assert await says(callout) == first and len(hop.asked) == 1
    clock.advance(0.1)
    assert callout.known(ANN) is None
    await says(callout)
    assert len(hop.asked) == 2


async def test_local_parts_are_asked_as_they_are_written_and_domains_without_case(callout, hop):
    for text in ("ann@ours.example", "ann@OURS.EXAMPLE", "Ann@ours.example"):
        await callout.ask(box(text))
    assert hop.about == ["ann@ours.example", "Ann@ours.example"]


async def test_one_look_up_an_address_at_a_time(callout, hop):
    hop.gate.clear()
    waiting = [asyncio.create_task(says(callout)) for _ in range(20)]
    await until(lambda: hop.asked)
    hop.gate.set()
    assert await asyncio.gather(*waiting) == [""] * 20
    assert len(hop.asked) == 1


async def test_a_client_that_hangs_up_ends_nobody_elses_waiting(callout, hop):
    hop.gate.clear()
    first, second = asyncio.create_task(says(callout)), asyncio.create_task(says(callout))
    await until(lambda: hop.asked)
    first.cancel()
    hop.gate.set()
    assert await second == ""
    assert first.cancelled()


async def test_a_next_hop_that_is_silent_defers_after_the_limit(callout, hop, clock, events):
    hop.gate.clear()
    waiting = asyncio.create_task(says(callout))
    await until(lambda: hop.asked)
    clock.advance(LIMIT - 0.1)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(0.1)
    assert await waiting == UNSURE
    assert hop.open == 0  # the look-up was ended
    [told] = [record for record in events.recent if record["event"] == "callout"]
    assert "no answer within 30 s" in told["text"]
    assert await says(callout) == UNSURE and len(hop.asked) == 1  # not asked again at once


async def test_few_look_ups_of_a_domain_at_once_and_the_rest_in_turn(callout, hop):
    """A dictionary attack on one domain neither floods its next hop nor stops the look-ups of another domain."""
    hop.gate.clear()
    many = [asyncio.create_task(says(callout, box(f"u{n}@ours.example"))) for n in range(20)]
    other = asyncio.create_task(says(callout, box("any@customer.example")))
    await until(lambda: "any@customer.example" in hop.about)
    assert hop.open == module.MOST_OF_DOMAIN + 1
    hop.gate.set()
    await asyncio.gather(*many, other)
    assert hop.peak == module.MOST_OF_DOMAIN + 1
    assert len(hop.about) == 21


async def test_too_many_look_ups_in_all_are_deferred_at_once(callout, hop, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOOKUPS", 3)
    hop.gate.clear()
    waiting = [asyncio.create_task(says(callout, box(f"u{n}@ours.example"))) for n in range(3)]
    await until(lambda: len(hop.asked) == 3)
    assert await says(callout) == UNSURE
    hop.gate.set()
    await asyncio.gather(*waiting)
    assert await says(callout) == ""  # it was not remembered as a deferral


async def test_what_existed_is_believed_while_its_server_is_down(callout, hop, clock):  # P18: a backup MX
    await says(callout)
    clock.advance(EXISTS_GOOD)
    hop.replies["ann@ours.example"] = SILENCE
    assert await says(callout) == "" and len(hop.asked) == 2
    assert await says(callout) == "" and len(hop.asked) == 2  # and is not asked for each message
    clock.advance(UNSURE_GOOD)
    assert await says(callout) == "" and len(hop.asked) == 3
    clock.advance(BELIEVED)
    assert await says(callout) == UNSURE
    hop.replies["ann@ours.example"] = NO_USER
    clock.advance(UNSURE_GOOD)
    assert await says(callout) == "550 5.1.1 Recipient unknown"


async def test_memory_is_bounded_and_strangers_do_not_clear_it_of_what_exists(callout, hop, monkeypatch):
    monkeypatch.setattr(module, "MOST_ANSWERS", 10)
    await says(callout)
    for number in range(50):
        hop.replies[f"u{number}@ours.example"] = NO_USER
        await says(callout, box(f"u{number}@ours.example"))
    assert callout.known(ANN) is not None
    assert callout.known(box("u39@ours.example")) is None and callout.known(box("u40@ours.example")) is not None


async def test_a_server_that_takes_everything_is_noticed(callout, hop, clock, events):
    hop.random = OK
    assert await says(callout) == ""
    assert hop.asked == [("ann@ours.example", f"{RANDOM}@ours.example")]
    assert "takes every address" in [record["text"] for record in events.recent][-1]
    [(text, since)] = callout.warnings()
    assert text.startswith("ours.example: ") and since == clock.now()
    # There is nothing to be learnt from it, so it is not asked for each recipient.
    known = callout.known(box("anybody@ours.example"))
    assert known is not None and known.refusal is None and "takes every address" in known.why
    clock.advance(module.EVERYTHING_GOOD)
    assert callout.warnings() == []
    hop.random = NO_USER
    hop.replies["anybody@ours.example"] = NO_USER
    assert await says(callout, box("anybody@ours.example")) == "550 5.1.1 Recipient unknown"


async def test_the_address_that_nobody_has_is_asked_for_once_a_day(callout, hop, clock):
    await says(callout)
    await says(callout, box("bob@ours.example"))
    assert [len(addresses) for addresses in hop.asked] == [2, 1]
    clock.advance(module.EVERYTHING_GOOD)
    await says(callout, box("carl@ours.example"))
    assert len(hop.asked[-1]) == 2


async def test_a_server_that_greylists_what_nobody_has_says_nothing_by_that(callout, hop):
    hop.random = LATER
    await says(callout)
    await says(callout, box("bob@ours.example"))
    assert [len(addresses) for addresses in hop.asked] == [2, 2]
    assert callout.warnings() == []


def test_the_address_that_nobody_has_cannot_be_guessed(clock, events):
    first, second = (Callout(clock, events)._token() for _ in range(2))
    assert first != second and len(first) >= 20


def reset(client: Client) -> None:
    """Close with a TCP reset."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


# -- sessions --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def ours(relay, hop: Hop) -> Relay:
    one: Relay = await relay(OURS)
    one.intake.callout = Callout(one.clock, one.events, hop, token=lambda: RANDOM)
    return one


async def test_a_session_waits_for_the_answer_and_goes_on(ours, hop):  # P18
    hop.replies |= {"nobody@ours.example": NO_USER, "later@customer.example": LATER}
    client = await ours.session()
    lines = ["MAIL FROM:<a@b.example>"]
    lines += [f"RCPT TO:<{to}>" for to in ("ann@ours.example", "nobody@ours.example", "later@customer.example",
                                           "victim@other.example", "ann@ours.example")]  # fmt: skip
    await client.send("".join(f"{line}\r\n" for line in [*lines, "DATA"]).encode())  # pipelined
    assert [(await client.reply()).text for _ in range(6)] == [
        "250 2.1.0 Sender ok",
        "250 2.1.5 Recipient ok",
        "550 5.1.1 <nobody@ours.example>: Recipient unknown",
        "450 4.1.1 <later@customer.example>: The recipient's server gives no answer, try again later",
        "554 5.7.1 <victim@other.example>: Relay access denied",
        "250 2.1.5 Recipient ok",
    ]
    assert (await client.reply()).code == 354
    await client.send(b"x: y\r\n\r\n.\r\n")
    assert (await client.reply()).code == 250
    assert [one.address for one in ours.queue.messages[0].recipients] == ["ann@ours.example"]
    assert hop.about == ["ann@ours.example", "nobody@ours.example", "later@customer.example"]  # nobody's else
    assert [record["rule"] for record in ours.told("refused")] == ["callout", "callout", "default"]


async def test_waiting_blocks_nobody_else(ours, hop):
    hop.gate.clear()
    client = await ours.session()
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@ours.example>\r\n")
    assert (await client.reply()).code == 250
    await until(lambda: hop.open)
    other = await ours.session()
    assert (await other.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await other.command("RCPT TO:<victim@other.example>")).code == 554
    hop.gate.set()
    assert (await client.reply()).code == 250


async def test_a_client_that_is_gone_when_the_answer_comes(ours, hop):
    hop.gate.clear()
    client = await ours.session()
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@ours.example>\r\n")
    await until(lambda: hop.open)
    reset(client)
    await until(lambda: not ours.intake.sessions)
    hop.gate.set()
    await until(lambda: ours.intake.callout.known(ANN))
    assert not ours.told("refused")


async def test_postmaster_is_asked_of_nobody(ours, hop):  # S18
    hop.gate.clear()
    client = await ours.session()
    await client.command("MAIL FROM:<a@b.example>")
    for to in ("postmaster@ours.example", "Postmaster@customer.example", "postmaster"):
        assert (await client.command(f"RCPT TO:<{to}>")).code == 250, to
    assert hop.asked == []


async def test_without_a_next_hop_to_ask_mail_waits_with_its_client(relay):
    one = await relay(OURS)
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<ann@ours.example>")).text.startswith("450 4.1.1")
