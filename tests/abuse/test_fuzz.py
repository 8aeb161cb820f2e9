"""Sessions that nobody has thought of: random commands against a model of what RFC 5321 section 4.1.4 lets them do, and
sessions damaged at random against what must hold whatever is said.

The model knows the state of a session in three words and says which code each command gets. A session is had twice:
in one piece, and cut into many; both must be what the model says, and so must the queue.
"""

import re
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailtui.intake.data import LINE_LIMIT
from mailtui.intake.session import COMMAND_LIMIT, ERROR_LIMIT
from tests.abuse.talk import KEPT, Taken, check, check_queue, content
from tests.abuse.test_properties import CUTS, one, send_in_pieces, stuffed
from tests.intake.conftest import Relay, over_every_wire, until
from tests.support.client import Client

__all__ = ["one"]

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

HELLO = ["EHLO c.test", "HELO c", "ehlo [127.0.0.1]", "EHLO localhost"]
BAD_HELLO = ["EHLO", "HELO ", "EHLO a\tb", "EHLO " + "x" * 300]
SENDERS = ["<a@b.example>", "<>", "<@r.example:a@b.example> SIZE=10", "<a@b.example> BODY=8BITMIME RET=HDRS ENVID=x"]
BAD_SENDERS = ["<a>", "a@b.example", "<a@b.example> FROB", "<a@b.example> SIZE=x", "<a@b@c.example>", ""]
OURS = ["<x@ours.example>", "<y@OURS.example>", '<"z"@ours.example> NOTIFY=NEVER', "<postmaster@ours.example>"]
KEPT_AS = {OURS[0]: "x@ours.example", OURS[1]: "y@OURS.example", OURS[2]: "z@ours.example",
           OURS[3]: "postmaster@ours.example"}  # fmt: skip
OTHERS = ["<v@other.example>", "<v@[127.0.0.1]>", "<@ours.example:v@other.example>", "<v%other.example@evil.example>"]
ERRORS = ["RSET x", "DATA x", "QUIT x", "VRFY", "EXPN x", "STARTTLS x", "AUTH PLAIN ="]
BAD_OURS = ["<x@ours.example> FROB=1", "<x@ours.example", "<x@ours.example>,<y@ours.example>", "<>", ""]
CONTENTS = [b"Subject: x\r\n\r\nx\r\n", b"", b".\r\n", b"x\r\n" * 2000, b"\0\xff\r\n", b"MAIL FROM:<a@b.example>\r\n"]
REFUSED = {b"a\nb\r\n": 550, b"a\rb\r\n": 550, b"x" * LINE_LIMIT + b"\r\n": 554}
VERBS = re.compile(rb"(?i)(MAIL|RCPT|DATA|EHLO|HELO|RSET|NOOP|QUIT|VRFY|HELP|STARTTLS|AUTH|BDAT|XCLIENT)\b")
HTTP = re.compile(rb"(?i)(GET|POST|PUT|HEAD|CONNECT|OPTIONS|DELETE|PATCH|TRACE|PRI)\Z|.*:\Z", re.DOTALL)


def is_junk(line: bytes) -> bool:
    return (
        b"\r\n" not in line
        and not line.endswith(b"\r")
        and not VERBS.match(line)
        and not HTTP.match(line.split(b" ")[0])
    )


JUNK = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b"\0", b"\n", b"\r\r", b"EXPN x", b"TURN", b"FROB " + b"x" * COMMAND_LIMIT, b"\xff" * 5000]),
).filter(is_junk)
STEPS = st.one_of(
    st.tuples(st.just("hello"), st.sampled_from(HELLO)),
    st.tuples(st.just("bad hello"), st.sampled_from(BAD_HELLO)),
    st.tuples(st.just("mail"), st.sampled_from(SENDERS)),
    st.tuples(st.just("mail"), st.sampled_from(SENDERS)),
    st.tuples(st.just("bad mail"), st.sampled_from(BAD_SENDERS)),
    st.tuples(st.just("rcpt"), st.sampled_from(OURS)),
    st.tuples(st.just("rcpt"), st.sampled_from(OURS)),
    st.tuples(st.just("bad rcpt"), st.sampled_from(OTHERS + BAD_OURS)),
    st.tuples(st.just("data"), st.sampled_from([*CONTENTS, *REFUSED])),
    st.tuples(st.just("data"), st.sampled_from([*CONTENTS, *REFUSED])),
    st.tuples(st.just("chunks"), st.sampled_from(CONTENTS)),
    st.tuples(st.just("chunks"), st.sampled_from(CONTENTS)),
    st.tuples(st.just("a chunk"), st.sampled_from(CONTENTS)),
    st.tuples(st.just("ok"), st.sampled_from(["NOOP", "NOOP x", "RSET", "VRFY x", "HELP"])),
    st.tuples(
        st.just("error"),
        st.sampled_from(["RSET x", "DATA x", "QUIT x", "VRFY", "EXPN x", "STARTTLS x", "AUTH PLAIN ="]),
    ),
    st.tuples(st.just("junk"), JUNK),
)


# Alone, steps seldom make a transaction: most come in one, with others between.
def transaction(
    hello: str, sender: str, between: list[tuple[str, str]], to: str, data: bytes
) -> list[tuple[str, str | bytes]]:
    return [("hello", hello), ("mail", sender), ("rcpt", to), *between, ("data", data)]


SESSIONS = st.lists(
    st.one_of(
        STEPS.map(lambda step: [step]),
        st.lists(STEPS, min_size=4, max_size=10),
        st.builds(
            transaction,
            st.sampled_from(HELLO),
            st.sampled_from(SENDERS),
            st.lists(STEPS, max_size=3),
            st.sampled_from(OURS),
            st.sampled_from([*CONTENTS, *REFUSED]),
        ),
    ),
    min_size=6,
    max_size=20,
).map(lambda parts: [step for part in parts for step in part])


@dataclass
class Model:
    """What a session is: greeted or not, amid a transaction or not, with recipients or not; and what it took."""

    greeted: bool = False
    sender: str | None = None
    recipients: dict[str, None] = field(default_factory=dict)
    chunks: bytes | None = None  # of a message by BDAT that has begun
    errors: int = 0
    closed: bool = False
    octets: bytes = b""
    replies: list[str] = field(default_factory=list)  # a pattern for each
    taken: list[Taken] = field(default_factory=list)

    def step(self, kind: str, what: str | bytes) -> None:
        """Write a command and say what is answered."""
        if self.closed:
            return
        if self.errors >= ERROR_LIMIT:
            self.octets += b"NOOP\r\n"
            self.replies.append("421")
            self.closed = True
            return
        if isinstance(what, bytes) and kind != "junk":
            return self._data(what) if kind == "data" else self._chunk(what, last=kind == "chunks")
        prefix = {"mail": b"MAIL FROM:", "bad mail": b"MAIL FROM:", "rcpt": b"RCPT TO:", "bad rcpt": b"RCPT TO:"}
        line = prefix.get(kind, b"") + (what if isinstance(what, bytes) else what.encode())
        self.octets += line + b"\r\n"
        self._answer(self._command(kind, str(what)))
        return None

    def _command(self, kind: str, what: str) -> str:
        if kind == "hello":
            self.greeted, self.sender, self.chunks = True, None, None
            return "250"
        if kind == "mail" and self.greeted and self.sender is None:
            self.sender, self.recipients = ("" if what == "<>" else "a@b.example"), {}
            return "250"
        if kind == "rcpt" and self.sender is not None and self.chunks is None:
            self.recipients[KEPT_AS[what]] = None
            return "250"
        if kind == "ok":
            if what == "RSET":
                self.sender = self.chunks = None
            return {"V": "252", "H": "214"}.get(what[0], "250")
        if kind in ("mail", "rcpt"):
            return "503"
        return "5.."

    def _data(self, what: bytes) -> None:
        self.octets += b"DATA\r\n"
        if self.sender is None or self.chunks is not None:
            return self._answer("503")
        if not self.recipients:
            return self._answer("554")
        self._answer("354")
        self.octets += stuffed(what)
        if what in REFUSED:
            self._answer(str(REFUSED[what]))
        else:
            self._answer("250")
            self._take(what, self.sender)
        self.sender = None
        return None

    def _chunk(self, what: bytes, *, last: bool) -> None:
        self.octets += b"BDAT %d%b\r\n" % (len(what), b" LAST" * last) + what
        if self.sender is None:
            return self._answer("503")
        if not self.recipients:
            return self._answer("554")
        self._answer("250")
        self.chunks = (self.chunks or b"") + what
        if last:
            self._take(self.chunks, self.sender)
            self.sender = self.chunks = None
        return None

    def _take(self, what: bytes, sender: str) -> None:
        self.errors = 0
        self.taken.append(Taken(what, " ".join(self.recipients), sender))

    def _answer(self, pattern: str) -> None:
        self.replies.append(pattern)
        self.errors += pattern[0] == "5"


async def compare(one: Relay, model: Model, cuts: list[int]) -> None:
    """Have the model's session, and be answered as it says."""
    one.queue.messages.clear()
    async with await one.client() as client:
        await send_in_pieces(client, model.octets, cuts)
        for number, pattern in enumerate(model.replies):
            answer = check(await client.reply())
            assert re.fullmatch(pattern, str(answer.code)), (number, pattern, answer)
        if model.closed:
            assert await client.closed() == b""
        else:
            assert check(await client.command("NOOP")).code == (421 if model.errors >= ERROR_LIMIT else 250)
    check_queue(one, model.taken)
    assert not one.told("error"), one.told("error")


@over_every_wire
@shared
@given(steps=SESSIONS, cuts=CUTS)
async def test_any_order_of_commands_is_answered_as_the_model_says(one, steps, cuts):  # S02, S09, S10, S11, S14, X05
    model = Model()
    for kind, what in steps:
        model.step(kind, what)
    await compare(one, model, [])
    await compare(one, model, cuts)


TRANSACTION = (
    b"MAIL FROM:<a@b.example> SIZE=100\r\nRCPT TO:<x@ours.example> NOTIFY=NEVER\r\nRCPT TO:<v@other.example>\r\n"
    b"DATA\r\nSubject: x\r\n\r\n..x\r\n.\r\n"
)
SESSION = b"EHLO c.test\r\n" + TRANSACTION + b"RSET\r\nVRFY x\r\n" + TRANSACTION + b"NOOP\r\nQUIT\r\n"
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b".\r\n", b"\r\n.\r\n", b"DATA\r\n",
         b"RCPT TO:<v@other.example>\r\n",
                     b"AUTH PLAIN AGEAYg==\r\n", b"BDAT 5\r\n", b"BDAT 0 LAST\r\n", b"STARTTLS\r\n", b"<", b">", b"@",
                     b'"',
                     b"XCLIENT ADDR=127.0.0.1\r\n", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", b"x" * 3000]),
)  # fmt: skip
DAMAGE = st.lists(st.tuples(st.integers(0, len(SESSION)), st.integers(0, 30), PIECES), max_size=6)


@settings(shared, max_examples=200)
@given(damage=DAMAGE, cuts=CUTS)
async def test_a_damaged_session_breaks_nothing(one, damage, cuts):  # P01, M01, M09, S02, X13
    written = SESSION
    for place, length, piece in damage:
        written = written[:place] + piece + written[place + length :]
    one.queue.messages.clear()
    async with await one.client() as client:
        await send_in_pieces(client, written, cuts)
        client.writer.write_eof()
        queued = await _replies(client)
    await until(lambda: not one.intake.sessions)
    assert len(one.queue.messages) == queued
    for number, message in enumerate(one.queue.messages):
        assert {recipient.destination for recipient in message.recipients} == {"ours.example"}
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content(one, number))
    assert one.intake.budget.used == 0
    assert not one.told("error"), one.told("error")


async def _replies(client: Client) -> int:
    """Read replies until the relay closes; how many of them said that a message was queued."""
    queued = 0
    while True:
        try:
            answer = check(await client.reply())
        except ConnectionError as error:
            assert str(error) == "closed after b''"  # no half of a reply
            return queued
        queued += answer.text.startswith("250 2.0.0 queued as ")


async def test_the_session_that_is_damaged_is_a_good_one(one):
    async with await one.client() as client:
        await client.send(SESSION)
        assert await _replies(client) == 2
    kept = KEPT._replace(content=b"Subject: x\r\n\r\n.x\r\n")
    check_queue(one, [kept, kept])
