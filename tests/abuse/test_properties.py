"""What holds for any octets: addresses and parameters are taken by the grammar and by nothing else, and what goes in
as a message comes out octet by octet, however it was cut on its way.

The grammars stand here a second time, as the RFCs have them, and not as the relay has them.
"""

import asyncio
import itertools
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.abuse.talk import MAIL, Taken, check, check_queue, content, expect
from tests.intake.conftest import STRANGER, Relay, over_every_wire
from tests.support.client import Client

# One intake for all examples: only its queue grows.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
# A session may make so many errors.
BATCH = 15


@pytest.fixture
async def one(relay) -> Relay:
    return await relay(STRANGER)


# RFC 5321 section 4.1.2 and 4.1.3; a label ends in no hyphen, and a name of digits and dots is no domain.
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LOCAL = rf'(?:{ATOM}(?:\.{ATOM})*|"(?:[ !#-\[\]-~]|\\[ -~])*")'
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
NAMES = rf"{NAME}(?:\.{NAME})*"
ROUTE = rf"@(?:{NAMES}|\[[0-9A-Za-z.:]+\])(?:,@(?:{NAMES}|\[[0-9A-Za-z.:]+\]))*:"
OURS = re.compile(rf"<(?:{ROUTE})?({LOCAL})@([Oo]urs\.[Ee]xample)>")
PIECES = st.sampled_from(
    ["x", "v", "a.b", "ours.example", "Ours.Example", "@ours.example", "@other.example", "@[127.0.0.1]", "@localhost",
     "@", "@", "<", ">", "<>", '"', '""', '"v@other.example"', "\\", '\\"', "%", "!", ":", ",", ";", ".", "..", " ",
         "\t",
     "(", ")", "@ours.example:", "@a.example,", "\uff20", "\u3002", "\0", "\x7f", "=", "evil", "-", "\u00fc"]
)  # fmt: skip
PATHS = st.one_of(
    st.lists(PIECES, max_size=8).map(lambda parts: "<" + "".join(parts) + ">"),
    st.lists(PIECES, max_size=8).map(lambda parts: "<" + "".join(parts) + "@ours.example>"),
    st.from_regex(OURS, fullmatch=True),
)


def unquoted(local: str) -> str:
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local


@shared
@given(paths=st.lists(PATHS, min_size=1, max_size=BATCH))
async def test_a_recipient_is_taken_if_it_is_a_path_to_us_and_then_as_it_was_meant(one, paths):  # P14, P17, S20, S22
    async with await one.session() as client:
        before = len(one.queue.messages)
        assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
        meant: dict[str, None] = {}
        for path in paths:
            match = OURS.fullmatch(path)
            local = unquoted(match[1]) if match else ""
            needs_quotes = not re.fullmatch(rf"{ATOM}(?:\.{ATOM})*", local)
            written = len(local) + 2 + len(re.findall(r'["\\]', local)) if needs_quotes else len(local)
            good = match is not None and written <= 64 and len(path) <= 256
            answer = check(await client.command(f"RCPT TO:{path}"))
            assert answer.code == 250 if good else answer.code in (500, 501, 553, 554), (path, answer)
            if good:
                meant[local] = None
        code = check(await client.command("DATA")).code
        assert code == (354 if meant else 554)
        if meant:
            assert (await client.command(".")).code == 250
            [message] = one.queue.messages[before:]
            assert [r.destination for r in message.recipients] == ["ours.example"] * len(meant)
            assert [unquoted(r.address.rpartition("@")[0]) for r in message.recipients] == list(meant)


XTEXT = r"(?:[!-*,-<>-~]|\+[2-6][0-9A-F]|\+7[0-9A-E])"
# RFC 1870, 6152, 6531, 3461; a BODY of BINARYMIME is another matter (RFC 3030).
PARAMETERS = {
    "SIZE": r"[0-9]{1,7}",
    "BODY": r"7[Bb][Ii][Tt]|8BITMIME|8bitmime",
    "RET": r"FULL|HDRS|full|hdrs",
    "ENVID": rf"{XTEXT}{{1,100}}",
}
PARAMETER = st.one_of(
    [st.from_regex(rf"{keyword}=({value})", fullmatch=True) for keyword, value in PARAMETERS.items()]
    + [st.just("SMTPUTF8"), st.from_regex(r"[A-Za-z0-9=+;-]{1,12}", fullmatch=True)]
    + [
        st.builds(
            "{}={}".format, st.sampled_from([*PARAMETERS, "AUTH"]), st.text("aA0+=\x00\x7f\t<>\u00fc~", max_size=6)
        )
    ]
)


def known(parameter: str) -> bool:
    keyword, equals, value = parameter.partition("=")
    if keyword.upper() == "SMTPUTF8":
        return not equals
    pattern = PARAMETERS.get(keyword.upper())
    return pattern is not None and bool(equals) and re.fullmatch(pattern, value, re.IGNORECASE) is not None


@shared
@given(commands=st.lists(st.lists(PARAMETER, max_size=4), min_size=1, max_size=BATCH))
async def test_mail_is_taken_with_the_parameters_of_the_rfcs_and_no_others(one, commands):  # S16, X01, X04, X15
    async with await one.session() as client:
        for parameters in commands:
            keywords = [parameter.partition("=")[0].upper() for parameter in parameters]
            good = all(known(each) for each in parameters) and len(set(keywords)) == len(keywords)
            answer = check(await client.command(" ".join([MAIL, *parameters])))
            assert answer.code == 250 if good else answer.code in (500, 501, 552, 553, 555), (parameters, answer)
            assert (await client.command("RCPT TO:<x@ours.example>")).code == (250 if good else 503)
            await client.command("RSET")
            if not good:  # two errors each
                await client.close()
                client = await one.session()
        await client.close()


LINES = st.one_of(
    st.sampled_from(
        [b"", b".", b"..", b". ", b"...", b"\0", b"\xff", b"RSET", b"QUIT", b"MAIL FROM:<a@b.example>", b"DATA"]
    ),
    st.binary(max_size=40).map(lambda octets: octets.replace(b"\r", b"").replace(b"\n", b"")),
    st.integers(1, 998).map(lambda size: b"." * size),
)
MESSAGES = st.lists(LINES, max_size=20).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
CUTS = st.lists(st.integers(0, 20_000), max_size=12)


async def send_in_pieces(client: Client, octets: bytes, cuts: list[int]) -> None:
    """Write octets so that the relay reads them cut at these places, taken modulo their number."""
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        await client.send(octets[start:end])
        for _ in range(3):  # of the loop: the relay reads what there is
            await asyncio.sleep(0)


def stuffed(message: bytes) -> bytes:
    """As it is written after DATA (RFC 5321 section 4.5.2)."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


@over_every_wire
@shared
@given(messages=st.lists(MESSAGES, min_size=1, max_size=3), cuts=CUTS)
async def test_what_goes_in_by_data_comes_out(one, messages, cuts):  # S34, S35, S37, X03, M10, K02
    one.queue.messages.clear()
    async with await one.session() as client:
        begin = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\nDATA\r\n"
        await send_in_pieces(client, b"".join(begin + stuffed(each) for each in messages) + b"NOOP\r\n", cuts)
        await expect(client, "250 250 354 250/2.0.0 " * len(messages) + "250")
    check_queue(one, [Taken(each) for each in messages])


@settings(shared, max_examples=20)
@given(message=MESSAGES, repeats=st.integers(200, 600), cuts=CUTS)
async def test_what_goes_in_by_a_spool_file_comes_out(one, message, repeats, cuts):  # R09, S37
    one.queue.messages.clear()
    one.queue.spools.clear()
    whole = (message or b"x\r\n") * repeats + b"x" * 998 + b"\r\n" + b"y\r\n" * 90_000
    async with await one.in_data(recipient="x@ours.example") as client:
        await send_in_pieces(client, stuffed(whole), [cut * 37 for cut in cuts])
        await expect(client, "250")
    assert content(one, 0) == whole


RAW = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x", b"\0", b"\r\n.", b"\x85", b"RSET\r\n"]), max_size=30)


@over_every_wire
@shared
@given(raw=RAW.map(b"".join), cuts=CUTS)
async def test_any_octets_of_data_are_one_message_or_none(one, raw, cuts):  # M01, M02, M05, M06, M09
    one.queue.messages.clear()
    written = raw + b"\r\n.\r\n"
    end = 0 if written.startswith(b".\r\n") else written.index(b"\r\n.\r\n") + 2  # as RFC 5321 section 4.1.1.4 has it
    data, rest = written[:end], written[end + 3 :]
    kept = (b"\r\n" + data).replace(b"\r\n.", b"\r\n")[2:]
    good = not re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    async with await one.in_data(recipient="x@ours.example") as client:
        await send_in_pieces(client, written, cuts)
        await expect(client, "250" if good else "550/5.6.0")
        for line in rest.split(b"\r\n")[:-1]:  # commands, each of them answered
            answer = check(await client.reply())
            assert answer.code == (250 if line == b"RSET" else 500), line
        assert check(await client.command("NOOP")).code == 250
    check_queue(one, [Taken(kept)] if good else [])
