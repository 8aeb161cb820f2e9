"""What a next hop is told and what it cannot be given. X, N and M numbers: the project's list of requirements."""

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.address import AddressError, parse_mailbox
from mailtui.bounce.text import decode_xtext
from mailtui.delivery.client import SessionLost
from mailtui.delivery.parameters import (
    Limits,
    limits,
    mail_command,
    onward,
    original_recipient,
    portions,
    rcpt_command,
    refusals,
    unsendable,
)
from mailtui.intake.parameters import mail_parameters, rcpt_parameters
from mailtui.model import Envelope, Message, Outcome, Recipient
from tests.delivery.conftest import BODY, Bench, outcomes
from tests.support.nexthop import NextHop

PLAIN: dict[str, str] = {"pipelining": "", "8bitmime": ""}
SIZED = {**PLAIN, "size": "1000"}
DSN = {**PLAIN, "dsn": ""}
UTF8 = {**PLAIN, "smtputf8": ""}
BOTH = {**DSN, **UTF8}

GREEN = "gr\u00fcn@m\u00fcnchen.example"
MUNICH = "c@m\u00fcnchen.example"
MUNICH_ASCII = "c@xn--mnchen-3ya.example"


def message(to: Sequence[str | Recipient] = ("c@d.example",), sender: str = "a@b.example", **facts: object) -> Message:
    envelope = Envelope(sender, 0.0, 500)
    for name, value in facts.items():
        assert hasattr(envelope, name)
        setattr(envelope, name, value)
    recipients = [r if isinstance(r, Recipient) else recipient(r, n) for n, r in enumerate(to, 1)]
    return Message(7, envelope, recipients, b"")


def recipient(address: str = "c@d.example", ordinal: int = 1, notify: str = "", orcpt: str = "") -> Recipient:
    return Recipient(ordinal, address, address.rpartition("@")[2], notify=notify, orcpt=orcpt)


def mail(one: Message, extensions: dict[str, str]) -> str:
    command = mail_command(one, one.recipients, extensions).decode()
    assert command.endswith("\r\n")
    return command[:-2]


def rcpt(one: Message, extensions: dict[str, str]) -> list[str]:
    return [rcpt_command(r, one, extensions).decode().removesuffix("\r\n") for r in one.recipients]


# -- DSN -------------------------------------------------------------------------------------------------------------


def test_without_parameters_nothing_is_said_and_nothing_invented():  # N11
    for extensions in (PLAIN, BOTH):
        assert mail(message(), extensions) == "MAIL FROM:<a@b.example>"
        assert rcpt(message(), extensions) == ["RCPT TO:<c@d.example>"]
    assert mail(message(), {**BOTH, "size": ""}) == "MAIL FROM:<a@b.example> SIZE=500"


ASKED = message([recipient(notify="SUCCESS,DELAY", orcpt="rfc822;Bob+2Bx@Old.example")], ret="HDRS", envid="QQ+3D3aBz")


def test_a_next_hop_with_dsn_gets_all_four_as_they_were_given():  # N10
    assert mail(ASKED, DSN) == "MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ+3D3aBz"
    assert rcpt(ASKED, DSN) == ["RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@Old.example"]
    assert onward(DSN) == "dsn"


def test_a_next_hop_without_dsn_gets_none_of_them():  # N10
    assert mail(ASKED, PLAIN) == "MAIL FROM:<a@b.example>"
    assert rcpt(ASKED, PLAIN) == ["RCPT TO:<c@d.example>"]
    assert onward(PLAIN) == ""


def test_the_original_recipient_is_added_where_a_report_is_asked_for():  # N11
    asked = message([recipient("c+x=y@D.example", notify="NEVER"), recipient("d@d.example")])
    assert rcpt(asked, DSN) == [
        "RCPT TO:<c+x=y@D.example> NOTIFY=NEVER ORCPT=rfc822;c+2Bx+3Dy@D.example",
        "RCPT TO:<d@d.example>",
    ]
    blank = message([recipient('"john doe"@d.example', notify="NEVER")])
    assert rcpt(blank, DSN) == ['RCPT TO:<"john doe"@d.example> NOTIFY=NEVER ORCPT=rfc822;"john+20doe"@d.example']


def test_an_original_recipient_that_is_longer_than_a_server_must_take_is_not_added():
    address = "c@" + ".".join(["\u65e5" * 20] * 4) + ".example"
    assert original_recipient(address, utf8=True) == f"utf-8;{address}"
    assert original_recipient(address, utf8=False) == ""


def test_orcpt_alone_goes_on_alone():  # N10
    assert rcpt(message([recipient(orcpt="rfc822;x@y")]), DSN) == ["RCPT TO:<c@d.example> ORCPT=rfc822;x@y"]


def test_a_utf8_original_recipient_is_raw_only_under_smtputf8():  # X18
    raw = message([recipient(orcpt=f"utf-8;{GREEN}\\x{{2B}}")])
    assert rcpt(raw, DSN) == rcpt(raw, BOTH) == [
        "RCPT TO:<c@d.example> ORCPT=utf-8;gr\\x{FC}n@m\\x{FC}nchen.example\\x{2B}"
    ]  # fmt: skip
    raw.envelope.utf8_header = True
    assert rcpt(raw, BOTH) == [f"RCPT TO:<c@d.example> ORCPT=utf-8;{GREEN}\\x{{2B}}"]
    added = message([recipient("gr\u00fcn+x@d.example", notify="NEVER")])
    assert rcpt(added, BOTH) == ["RCPT TO:<gr\u00fcn+x@d.example> NOTIFY=NEVER ORCPT=utf-8;gr\u00fcn\\x{2B}x@d.example"]
    in_ascii = message([recipient(MUNICH, notify="NEVER")])
    assert rcpt(in_ascii, DSN) == [f"RCPT TO:<{MUNICH_ASCII}> NOTIFY=NEVER ORCPT=utf-8;c@m\\x{{FC}}nchen.example"]


@given(st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f"), min_size=1, max_size=30), st.booleans())
def test_the_original_recipient_that_is_added_stands_for_the_address(text, utf8):
    try:
        address = parse_mailbox(f"{text}@example.org".encode("utf-8", "surrogatepass"), utf8=True).text
    except AddressError:
        return
    value = original_recipient(address, utf8=utf8)
    # It is what our own intake takes.
    assert rcpt_parameters(b"ORCPT=" + value.encode(), utf8=utf8).orcpt == value
    kind, _, rest = value.partition(";")
    escape = re.compile(r"\\x\{(\w+)\}")
    meant = decode_xtext(rest) if kind == "rfc822" else escape.sub(lambda found: chr(int(found[1], 16)), rest)
    assert meant == address
    assert utf8 or value.isascii()


XTEXT = st.lists(
    st.one_of(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="+="),
        st.sampled_from(["+2B", "+3D", "+20", "+41"]),
    ),
    min_size=1,
    max_size=30,
).map("".join)


@given(XTEXT, XTEXT, st.sampled_from(["", "FULL", "HDRS"]), st.sampled_from(["NEVER", "SUCCESS", "DELAY,FAILURE"]))
def test_what_goes_out_is_what_came_in(envid, original, ret, notify):  # N10
    orcpt = f"rfc822;{original}"
    asked = message([recipient(notify=notify, orcpt=orcpt)], ret=ret, envid=envid)
    parameters = mail_command(asked, asked.recipients, DSN).partition(b"> ")[2].rstrip()
    assert tuple(mail_parameters(parameters, 1000)) == (False, ret, envid)
    parameters = rcpt_command(asked.recipients[0], asked, DSN).partition(b"> ")[2].rstrip()
    assert tuple(rcpt_parameters(parameters, utf8=False)) == (notify, orcpt)


@pytest.mark.parametrize("bad", ["a\r\nRSET", "a b", "a\x00"])
def test_a_stored_value_that_would_break_the_line_is_never_sent(bad):
    with pytest.raises(SessionLost):
        mail(message(envid=bad), DSN)
    for spoilt in (recipient(orcpt=f"rfc822;{bad}"), recipient(notify=bad)):
        with pytest.raises(SessionLost):
            rcpt(message([spoilt]), DSN)
    with pytest.raises(SessionLost):
        rcpt(message([recipient(f"{bad}@d.example")]), PLAIN)
    with pytest.raises(SessionLost):
        mail(message(sender=f"{bad}@d.example"), PLAIN)


# -- SMTPUTF8 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        message(sender=GREEN, smtputf8=True),
        message(["c@d.example", GREEN], smtputf8=True),
        message([MUNICH], smtputf8=True),
        message(smtputf8=True, utf8_header=True, eight_bit=True),
    ],
)
def test_mail_says_smtputf8_where_something_needs_it(one):  # X16
    assert mail(one, UTF8).endswith(" SMTPUTF8")
    assert unsendable(one, one.recipients, UTF8) is None
    if one.recipients[-1].address != "c@d.example":
        assert rcpt(one, UTF8)[-1] == f"RCPT TO:<{one.recipients[-1].address}>"


def test_mail_does_not_say_it_for_those_recipients_that_do_not_need_it():  # X16
    one = message(["c@d.example", GREEN], smtputf8=True)
    assert mail_command(one, one.recipients[:1], UTF8) == b"MAIL FROM:<a@b.example>\r\n"
    # 8-bit content and a client that did not ask for SMTPUTF8: as ever.
    assert mail(message(eight_bit=True), UTF8) == "MAIL FROM:<a@b.example> BODY=8BITMIME"


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (message(sender=GREEN, smtputf8=True), 553),
        (message([GREEN], smtputf8=True), 553),
        (message([MUNICH], smtputf8=True, utf8_header=True, eight_bit=True), 550),
    ],
)
def test_what_needs_smtputf8_is_returned_where_it_is_not_offered(one, code):  # X16
    verdict = unsendable(one, one.recipients, PLAIN)
    assert verdict is not None
    assert (verdict.outcome, verdict.code, verdict.enhanced) == (Outcome.BOUNCED, code, "5.6.7")
    assert refusals(one, one.recipients, PLAIN) == {1: verdict}


def test_a_domain_alone_is_said_in_a_labels_where_smtputf8_is_not_offered():  # X17
    one = message([MUNICH], sender="a@gr\u00fcn.example", smtputf8=True, eight_bit=True)  # 8 bits in its body only
    assert unsendable(one, one.recipients, PLAIN) is None
    assert mail(one, PLAIN) == "MAIL FROM:<a@xn--grn-ioa.example> BODY=8BITMIME"
    assert rcpt(one, PLAIN) == [f"RCPT TO:<{MUNICH_ASCII}>"]
    assert rcpt(one, UTF8) == [f"RCPT TO:<{MUNICH}>"]


def test_only_the_recipients_that_need_smtputf8_are_refused_for_it():  # X16
    one = message(["c@d.example", GREEN, MUNICH], smtputf8=True)
    assert unsendable(one, one.recipients, PLAIN) is not None
    assert list(refusals(one, one.recipients, PLAIN)) == [2]
    assert refusals(one, one.recipients, UTF8) == {}


def test_an_address_that_needs_smtputf8_is_never_sent_without():  # X16: the net under `unsendable`
    with pytest.raises(SessionLost):
        rcpt(message([GREEN]), PLAIN)
    with pytest.raises(SessionLost):
        mail(message(sender=GREEN), PLAIN)


UTF8_KEYWORDS = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN"]


async def test_an_smtputf8_message_goes_to_a_host_that_takes_it(bench: Bench) -> None:  # X16
    async with AsyncExitStack() as stack:
        without, knows = [await stack.enter_async_context(NextHop()) for _ in range(2)]
        knows.keywords = UTF8_KEYWORDS
        ended = await bench.attempt(bench.work(without, knows, message=bench.message(["c@dest.test", GREEN])))
        assert [code for _, code, _ in outcomes(ended)] == [250, 250]
        assert [each.recipients for each in without.messages] == [["c@dest.test"]]
        assert [each.recipients for each in knows.messages] == [[GREEN]]
        assert "SMTPUTF8" not in without.messages[0].mail_parameters
        assert knows.messages[0].mail_parameters.split()[-1] == "SMTPUTF8"
        assert [facts.onward for _, _, facts in ended.results] == ["", "dsn"]
        assert knows.messages[0].data == BODY


async def test_an_ascii_recipient_is_delivered_although_the_other_one_is_returned(bench: Bench, hop: NextHop) -> None:
    ended = await bench.attempt(bench.work(hop, message=bench.message([GREEN, "c@dest.test"])))
    assert outcomes(ended) == [(Outcome.BOUNCED, 553, "5.6.7"), (Outcome.DELIVERED, 250, "2.0.0")]
    assert [each.recipients for each in hop.messages] == [["c@dest.test"]]


async def test_a_kept_session_says_who_reports(bench: Bench, hop: NextHop) -> None:  # N10
    hop.keywords = UTF8_KEYWORDS
    first = await bench.attempt(bench.work(hop))
    second = await bench.attempt(bench.work(hop), first.session)
    for ended in (first, second):
        assert [facts.onward for _, _, facts in ended.results] == ["dsn"]


# -- SIZE ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("announced", "fits"),
    [("499", False), *((text, True) for text in ("500", "0", "", "000", "lots", "9" * 30, "\u00b2"))],
)
def test_a_message_above_the_next_hops_size_is_not_begun(announced, fits):  # X01
    one = message()
    verdict = unsendable(one, one.recipients, {**PLAIN, "size": announced})
    if fits:
        assert verdict is None
    else:
        assert verdict is not None
        assert (verdict.outcome, verdict.code, verdict.enhanced) == (Outcome.BOUNCED, 552, "5.3.4")
        assert "500 octets" in verdict.reply and "499" in verdict.reply


async def test_a_message_too_large_for_one_host_goes_to_the_next(bench: Bench) -> None:  # X01
    async with AsyncExitStack() as stack:
        small, large = [await stack.enter_async_context(NextHop()) for _ in range(2)]
        small.keywords = ["PIPELINING", f"SIZE {len(BODY) - 1}"]
        ended = await bench.attempt(bench.work(small, large))
        assert [code for _, code, _ in outcomes(ended)] == [250]
        assert small.lines("MAIL") == []
        ended = await bench.attempt(bench.work(small))
        assert outcomes(ended) == [(Outcome.BOUNCED, 552, "5.3.4")]


def test_8_bit_content_needs_8bitmime():  # X03
    one = message(eight_bit=True)
    verdict = unsendable(one, one.recipients, {"pipelining": ""})
    assert verdict is not None
    assert (verdict.code, verdict.enhanced) == (554, "5.6.3")


# -- LIMITS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("RCPTMAX=20 RCPTDOMAINMAX=1", Limits(0, 20, 1)),
        ("MAILMAX=5", Limits(5, 0, 0)),
        ("mailmax=5 FROB=1 RCPTMAX=007", Limits(5, 7, 0)),
        ("RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=x", Limits()),
        ("RCPTMAX=1234567 RCPTMAX", Limits()),
        ("", Limits()),
    ],
)
def test_limits_are_read(said, meant):  # X22
    assert limits({**PLAIN, "limits": said}) == meant
    assert limits(PLAIN) == Limits()


def addresses(groups: list[list[Recipient]]) -> list[list[str]]:
    return [[each.address for each in group] for group in groups]


def test_recipients_are_parted_as_the_limits_say():  # X22
    five = message(["a@x", "b@y", "c@x", "d@z", "e@x"]).recipients
    assert addresses(portions(five, Limits())) == [["a@x", "b@y", "c@x", "d@z", "e@x"]]
    assert addresses(portions(five, Limits(rcptmax=2))) == [["a@x", "b@y"], ["c@x", "d@z"], ["e@x"]]
    assert addresses(portions(five, Limits(rcptdomainmax=1))) == [["a@x", "c@x", "e@x"], ["b@y"], ["d@z"]]
    assert addresses(portions(five, Limits(0, 2, 2))) == [["a@x", "c@x"], ["e@x", "b@y"], ["d@z"]]
    assert portions([], Limits(0, 2, 2)) == []


@given(
    st.lists(st.sampled_from(["x", "y", "z", "u", "v"]), max_size=40), st.integers(0, 6), st.integers(0, 4)
)  # fmt: skip
def test_no_portion_is_above_a_limit_and_nobody_is_left_out(domains, most, of_domains):  # X22
    recipients = message([f"u{n}@{domain}" for n, domain in enumerate(domains)]).recipients
    parts = portions(recipients, Limits(0, most, of_domains))
    for part in parts:
        assert part
        assert not most or len(part) <= most
        assert not of_domains or len({each.destination for each in part}) <= of_domains
    assert sorted(each.ordinal for part in parts for each in part) == [each.ordinal for each in recipients]
