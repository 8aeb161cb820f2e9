"""What a client says in MAIL and RCPT reaches the next hop, as far as that knows it. X and N numbers: the project's
list of requirements."""

from collections.abc import Sequence

import pytest

from tests.end_to_end.conftest import Live, stored
from tests.support.nexthop import DEFAULT_KEYWORDS, NextHop

GREEN = "gr\u00fcn@m\u00fcnchen.example"
MUNICH = "c@m\u00fcnchen.example"
CONTENT = "From: <gr\u00fcn@m\u00fcnchen.example>\r\nSubject: Gr\u00fc\u00dfe\r\n\r\nna\u00efve\r\n".encode()
ASCII = b"Subject: hello\r\n\r\nx\r\n"


async def hand_in(relay: Live, *commands: str, content: bytes = ASCII) -> str:
    """A transaction in these commands; the queue id."""
    async with await relay.client() as client:
        for command in commands:
            answer = await client.command(command)
            assert answer.code == 250, (command, answer)
        assert (await client.command("DATA")).code == 354
        await client.send(content + b".\r\n")
        answer = await client.reply()
        assert answer.code == 250
        return answer.text.rpartition(" ")[2]


def knows(hop: NextHop, *keywords: str) -> None:
    hop.keywords = [*DEFAULT_KEYWORDS, *keywords]


def words(parameters: str) -> list[str]:
    """Without SIZE, which has tests of its own."""
    return [word for word in parameters.split() if not word.startswith("SIZE=")]


async def results(relay: Live) -> list[tuple[str, str, str]]:
    return [(past["recipient"], past["result"], past["enhanced"]) for past in await relay.history()]


async def test_an_smtputf8_message_arrives_byte_for_byte(relay: Live, hop: NextHop) -> None:  # X15, X16
    knows(hop, "SMTPUTF8")
    number = await hand_in(
        relay, f"MAIL FROM:<{GREEN}> BODY=8BITMIME SMTPUTF8", f"RCPT TO:<{GREEN}>", content=CONTENT
    )  # fmt: skip
    [got] = await hop.received(1)
    await relay.told("delivered")
    assert (got.sender, got.recipients) == (GREEN, [GREEN])
    assert words(got.mail_parameters) == ["BODY=8BITMIME", "SMTPUTF8"]
    trace, content = stored(got.data)
    assert content == CONTENT
    assert f"with UTF8SMTP id {number}\r\n\tfor <{GREEN}>; ".encode() in trace
    [past] = await relay.history()
    assert (past["sender"], past["recipient"], past["subject"]) == (GREEN, GREEN, "Gr\u00fc\u00dfe")


@pytest.mark.parametrize(
    ("sender", "recipient", "content"),
    [("a@sender.test", GREEN, ASCII), (GREEN, "bob@dest.test", ASCII), ("a@sender.test", "bob@dest.test", CONTENT)],
)
async def test_what_needs_smtputf8_is_returned_where_it_is_not_known(  # X16
    relay: Live, hop: NextHop, sender: str, recipient: str, content: bytes
) -> None:
    await hand_in(relay, f"MAIL FROM:<{sender}> SMTPUTF8", f"RCPT TO:<{recipient}>", content=content)
    await relay.told("bounced")
    assert (recipient, "bounced", "5.6.7") in await results(relay)
    assert not [line for line in hop.lines("RCPT") if recipient in line]


async def test_a_utf8_domain_alone_goes_on_in_a_labels(relay: Live, hop: NextHop) -> None:  # X17
    await hand_in(relay, "MAIL FROM:<a@gr\u00fcn.example> SMTPUTF8", f"RCPT TO:<{MUNICH}>")
    [got] = await hop.received(1)
    assert (got.sender, got.recipients) == ("a@xn--grn-ioa.example", ["c@xn--mnchen-3ya.example"])
    assert words(got.mail_parameters) == []
    assert stored(got.data)[1] == ASCII and got.data.isascii()


async def test_a_recipient_that_can_be_sent_to_is_not_held_up_by_one_that_cannot(  # X16
    relay: Live, hop: NextHop
) -> None:
    await hand_in(
        relay, "MAIL FROM:<a@sender.test> SMTPUTF8", f"RCPT TO:<{GREEN}>", "RCPT TO:<bob@dest.test>", content=ASCII
    )
    got = (await hop.received(1))[0]
    await relay.told("bounced")
    assert got.recipients == ["bob@dest.test"]
    assert {(GREEN, "bounced", "5.6.7"), ("bob@dest.test", "delivered", "2.0.0")} <= set(await results(relay))


async def test_asking_for_smtputf8_without_need_asks_nothing_of_the_next_hop(relay: Live, hop: NextHop) -> None:  # X16
    knows(hop, "SMTPUTF8")
    await hand_in(relay, "MAIL FROM:<a@sender.test> SMTPUTF8", "RCPT TO:<bob@dest.test>")
    [got] = await hop.received(1)
    assert words(got.mail_parameters) == []


WITH_DSN: Sequence[str] = (
    "MAIL FROM:<a@sender.test> RET=HDRS ENVID=QQ+2B3aBz",
    "RCPT TO:<one@dest.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Uno@Old.test",
    "RCPT TO:<two@dest.test> NOTIFY=NEVER",
    "RCPT TO:<three@dest.test>",
)


async def test_dsn_parameters_go_on_to_a_next_hop_that_knows_them(relay: Live, hop: NextHop) -> None:  # N10, N11
    knows(hop, "DSN")
    await hand_in(relay, *WITH_DSN)
    [got] = await hop.received(1)
    assert words(got.mail_parameters) == ["RET=HDRS", "ENVID=QQ+2B3aBz"]
    assert got.rcpt_parameters == {
        "one@dest.test": "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Uno@Old.test",
        "two@dest.test": "NOTIFY=NEVER ORCPT=rfc822;two@dest.test",
        "three@dest.test": "",
    }
    await relay.told("delivered", 3)
    assert len(hop.messages) == 1  # who reports a success is the next hop


async def test_dsn_parameters_do_not_go_on_to_one_that_does_not(relay: Live, hop: NextHop) -> None:  # N10
    await hand_in(relay, *WITH_DSN)
    got = (await hop.received(1))[0]
    assert words(got.mail_parameters) == []
    assert set(got.rcpt_parameters.values()) == {""}


async def test_what_was_asked_survives_a_deferral_and_a_look_into_the_database(  # N10, X16
    relay: Live, hop: NextHop
) -> None:
    knows(hop, "DSN", "SMTPUTF8")
    hop.rcpt = ["451 4.7.1 greylisted"]
    await hand_in(
        relay, "MAIL FROM:<a@sender.test> SMTPUTF8 RET=FULL ENVID=x+2By",
        f"RCPT TO:<bob@dest.test> NOTIFY=FAILURE ORCPT=utf-8;{GREEN}", content=CONTENT,
    )  # fmt: skip
    await relay.told("deferred")
    await relay.pass_time(3600)
    [got] = await hop.received(1)
    assert words(got.mail_parameters) == ["BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x+2By"]
    assert got.rcpt_parameters == {"bob@dest.test": f"NOTIFY=FAILURE ORCPT=utf-8;{GREEN}"}
    assert stored(got.data)[1] == CONTENT


async def test_minimum_quoting_goes_on(relay: Live, hop: NextHop) -> None:  # S22
    await hand_in(relay, 'MAIL FROM:<"a"@sender.test>', 'RCPT TO:<"john doe"@dest.test>', 'RCPT TO:<"bob"@dest.test>')
    [got] = await hop.received(1)
    assert (got.sender, got.recipients) == ("a@sender.test", ['"john doe"@dest.test', "bob@dest.test"])


async def test_a_message_above_the_next_hops_size_is_returned_unsent(relay: Live, hop: NextHop) -> None:  # X01
    hop.keywords = ["PIPELINING", "SIZE 100"]
    await hand_in(
        relay, "MAIL FROM:<>", "RCPT TO:<bob@dest.test>", content=b"Subject: x\r\n\r\n" + b"x" * 100 + b"\r\n"
    )
    await relay.told("bounced")
    assert ("bob@dest.test", "bounced", "5.3.4") in await results(relay)
    assert not [line for line in hop.lines("RCPT") if "bob" in line]
