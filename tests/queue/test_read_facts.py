"""What the reader says about one message, about the whole queue, and about what is over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailtui import ids
from mailtui.model import State
from mailtui.queue.database import path_of
from mailtui.queue.query import QueryError, parse
from mailtui.queue.read import HEADER_LIMIT, Reader
from mailtui.queue.rows import Counts, Row
from mailtui.queue.tables.history import BOUNCED, DELETED, DELIVERED, REFUSED
from mailtui.queue.tables.messages import BYTES, CLEAN
from tests.queue.filled import NOW, Filled, to

NOTHING = {"queued": 0, "active": 0, "deferred": 0, "held": 0, "leaving": 0}


def test_a_row_has_every_fact(filled: Filled, reader: Reader) -> None:
    recipient = to(
        "Ann@Example.com",
        state=State.DEFERRED,
        due=NOW + 300,
        attempts=2,
        code=421,
        last_enhanced="4.7.0",
        last_reply="later",
        last_host="mx1.example.com",
        expires=NOW + 5,
        interruptions=1,
        warned=True,
        submitter="bob",
        held_by="ann",
    )
    envelope = {"sender": "Bob@S.example", "subject": "Hé", "message_id": "<1@x>", "client": "192.0.2.9", "user": "bob"}
    number = filled.add(recipient, age=60, size=77, **envelope)
    assert reader.list(parse([], NOW)) == [
        Row(
            id=number,
            ordinal=1,
            recipient="Ann@Example.com",
            sender="Bob@S.example",
            subject="Hé",
            message_id="<1@x>",
            destination="example.com",
            hop="[example.com]:25",
            state="deferred",
            size=77,
            arrived=NOW - 60,
            due=NOW + 300,
            attempts=2,
            last_code=421,
            last_enhanced="4.7.0",
            last_reply="later",
            last_host="mx1.example.com",
            route="",
            client="192.0.2.9",
            user="bob",
            held_by="ann",
            expires=NOW + 5,
            since=NOW - 60,
            warned=True,
            interruptions=1,
            submitter="bob",
            cursor="a~" + ids.rid(number, 1),
        )
    ]


def test_a_message_is_shown_whole(filled: Filled, reader: Reader) -> None:
    envelope = {
        "client": "192.0.2.9",
        "helo": "me",
        "protocol": "ESMTPS",
        "tls": "TLSv1.3",
        "ret": "HDRS",
        "envid": "E1",
    }
    flags = {"eight_bit": True, "requiretls": True, "trusted": True, "smtputf8": True}
    people = [
        to("b@b.example", 2, state=State.DEFERRED),
        to("a@a.example", 1),
        to("c@c.example", 3, state=State.LEAVING),
    ]
    number = filled.add(*people, claims=[1, 2], **envelope, **flags)
    filled.add(to("other@a.example"))
    filled.attempt(number, 2, at=NOW + 2, code=450)
    filled.attempt(number, 2, at=NOW + 1)
    filled.attempt(number + 1, 1)
    found = reader.message(number, frozenset({(number, 1), (number, 3)}))
    assert found is not None
    assert (found.id, found.spooled) == (number, False)
    for name, value in (envelope | flags).items():
        assert getattr(found.envelope, name) == value
    assert (found.envelope.sender, found.envelope.size, found.envelope.arrived) == ("bob@sender.example", 1000, NOW)
    assert [(r.ordinal, r.recipient, r.state) for r in found.recipients] == [
        (1, "a@a.example", "active"),
        (2, "b@b.example", "deferred"),
        (3, "c@c.example", "leaving"),
    ]
    assert [(a.ordinal, a.code, a.started, a.finished) for a in found.attempts] == [
        (2, 450, NOW + 1, NOW + 2),
        (2, 421, NOW, NOW + 1),
    ]
    first = found.attempts[0]
    assert (first.reused, first.host, first.transcript) == (True, "mx.example", "S: 220")
    assert first.tls == {"wanted": "may", "reached": "encrypted"}
    assert first.delays == {"connect": 0.5}
    assert reader.attempts(number) == found.attempts
    assert reader.message(1) is None
    assert reader.attempts(1) == ()


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"Received: x\r\n\ty\r\nSubject: z\r\n\r\ntext\r\n\r\nmore\r\n", b"Received: x\r\n\ty\r\nSubject: z\r\n"),
        (b"Subject: no text\r\n", b"Subject: no text\r\n"),
        (b"A: b\r\n" * 100_000 + b"\r\n" + b"x" * 300_000, b"A: b\r\n" * 100_000),
        (b"A: b\r\n" * 300_000 + b"\r\ntext", b"A: b\r\n" * (HEADER_LIMIT // 6)),
    ],
    ids=["usual", "header only", "long", "too long"],
)
def test_header_and_content_are_read_from_row_or_spool_file(
    filled: Filled, reader: Reader, content: bytes, header: bytes, spooled: bool
) -> None:
    number = filled.add(to("a@a.example"), body=None if spooled else content)
    if spooled:
        (filled.spool / ids.encode(number)).write_bytes(content)
    assert reader.header(number, filled.spool) == header
    assert b"".join(reader.content(number, filled.spool)) == content
    stored = reader.message(number)
    assert stored is not None and stored.spooled is spooled


def test_content_that_is_gone_is_an_error(filled: Filled, reader: Reader) -> None:
    with pytest.raises(KeyError):
        reader.content(1, filled.spool)
    number = filled.add(to("a@a.example"), body=None)
    with pytest.raises(FileNotFoundError):
        reader.header(number, filled.spool)


def test_totals_of_an_empty_queue(reader: Reader) -> None:
    assert reader.totals() == NOTHING | {"messages": 0, "recipients": 0, "bytes": 0, "oldest": None}
    assert reader.count(parse([], NOW)) == Counts(0, 0, 0)


def test_totals_count_what_is_leaving_apart(filled: Filled, reader: Reader) -> None:
    filled.add(to("a@a.example", state=State.LEAVING), to("b@a.example", 2, state=State.LEAVING), age=90, size=5)
    filled.add(to("a@a.example", state=State.LEAVING), to("b@b.example", 2, state=State.HELD), age=80, size=10)
    busy = filled.add(to("a@a.example"), to("b@b.example", 2, state=State.DEFERRED), age=70, size=20, claims=[1, 2])
    filled.add(to("a@a.example"), age=60, size=40)
    active = frozenset({(busy, 1), (busy, 2), (1, 1)})
    expected = {"queued": 1, "active": 2, "deferred": 0, "held": 1, "leaving": 3}
    assert reader.totals(active) == expected | {"messages": 3, "recipients": 4, "bytes": 70, "oldest": NOW - 80}
    stopped = {"queued": 2, "active": 0, "deferred": 1, "held": 1, "leaving": 3}
    assert reader.totals() == stopped | {"messages": 3, "recipients": 4, "bytes": 70, "oldest": NOW - 80}
    assert reader.count(parse([], NOW), list(active), active) == Counts(3, 4, 70)
    assert reader.count(parse(["state:leaving"], NOW)) == Counts(2, 3, 15)


def test_a_message_counts_once_whether_parked_or_claimed(filled: Filled, reader: Reader) -> None:
    people = [to("a@a.example"), to("b@a.example", 2), to("c@a.example", 3)]
    number = filled.add(*people, size=10, claims=[1, 2])
    other = filled.add(to("a@a.example"), size=5, claims=[1])
    claimed = [(number, 1), (number, 2), (other, 1)]
    assert reader.count(parse(["dest:a.example"], NOW), claimed) == Counts(2, 4, 15)
    assert reader.count(parse(["dest:a.example", "-to:c@*"], NOW), claimed) == Counts(2, 3, 15)
    assert reader.count(parse(["state:active"], NOW), claimed, frozenset(claimed[:2])) == Counts(1, 2, 10)


def test_orphans_are_the_claims_of_a_relay_that_did_not_stop_cleanly(filled: Filled, reader: Reader) -> None:
    number = filled.add(to("a@a.example"), to("b@a.example", 2, state=State.DEFERRED), claims=[1, 2])
    filled.add(to("c@a.example"))
    filled.meta(CLEAN, 0)
    orphans = reader.orphans()
    assert sorted(orphans) == [(number, 1), (number, 2)]
    rows = reader.list(parse([], NOW), claimed=orphans)
    assert [(row.recipient, row.state) for row in rows] == [
        ("c@a.example", "queued"),
        ("b@a.example", "deferred"),
        ("a@a.example", "queued"),
    ]
    filled.meta(CLEAN, 1)
    assert reader.orphans() == []


def test_meta_is_0_until_it_is_set(filled: Filled, reader: Reader) -> None:
    assert reader.meta(BYTES) == 0
    filled.meta(BYTES, 7)
    assert reader.meta(BYTES) == 7


def test_history_is_led_by_terms(filled: Filled, reader: Reader) -> None:
    past = filled.past
    past(11, 1, "ann@a.example", result=DELIVERED, at=NOW - 50, arrived=NOW - 7200)
    past(11, 2, "bob@b.example", result=BOUNCED, at=NOW - 40, code=550, enhanced="5.1.1", sender="eve@x.example")
    past(12, 1, "Carl@A.example", result=DELETED, at=NOW - 30, code=0, attempts=4)
    past(0, 0, "eve@c.example", result=REFUSED, at=NOW - 20, code=554, enhanced="5.7.1")
    queries = {
        "": [0, 12, 11, 11],
        "to:carl@a.example": [12],
        "to:@a.example": [12, 11],
        "dest:a.example,c.example": [0, 12, 11],
        "dest:*.example -dest:a.example": [0, 11],
        "from:eve@x.example": [11],
        "code:5*": [0, 11],
        "code:5.1.1": [11],
        "tries>3": [12],
        "age>1h": [11],
        "age<1h": [0, 12, 11],
        ids.encode(11): [11, 11],
        f"{ids.encode(11)} {ids.rid(11, 2)}": [11, 11],
        f"{ids.rid(11, 2)},{ids.encode(12)}": [12, 11],
        f"{ids.encode(11)} dest:b.example": [11],
        f"-{ids.encode(11)}": [0, 12],
        "dest:nowhere.example": [],
        "from:@X.example": [11],
        "-from:@x.example,<>": [0, 12, 11],
        "subject:SUBJ": [0, 12, 11, 11],
        "msgid:m@x": [0, 12, 11, 11],
        "reply:ok host:mx.*": [0, 12, 11, 11],
        "-host:mx.example": [],
    }
    for text, expected in queries.items():
        assert [row.id for row in reader.history(parse(text.split(), NOW))] == expected, text
    bounced = reader.history(parse([ids.rid(11, 2)], NOW))[0]
    assert (bounced.result, bounced.recipient, bounced.destination) == ("bounced", "bob@b.example", "b.example")
    assert (bounced.code, bounced.enhanced, bounced.reply, bounced.remote_id) == (550, "5.1.1", "ok", "R1")
    assert (bounced.at, bounced.arrived, bounced.attempts, bounced.tls) == (NOW - 40, NOW - 100, 1, {})
    assert [row.ordinal for row in reader.history_of(11)] == [2, 1]


def test_history_pages_go_on_where_they_ended(filled: Filled, reader: Reader) -> None:
    for i in range(9):
        filled.past(20 + i, 1, f"x@d{i % 3}.example", result=DELIVERED, at=NOW + i)
    for text in ("", "dest:d0.example,d1.example", "to:x@*"):
        whole = reader.history(parse(text.split(), NOW))
        assert [row.at for row in whole] == sorted((row.at for row in whole), reverse=True)
        first = reader.history(parse(text.split(), NOW), limit=4)
        filled.past(40, 1, "x@d0.example", result=DELIVERED, at=NOW + 100)
        rest = reader.history(parse(text.split(), NOW), limit=100, after=first[-1].cursor)
        assert first + rest == whole
    assert reader.history(parse([], NOW), limit=0) == []


def test_history_refuses_what_means_nothing_there(reader: Reader) -> None:
    for word in ("hop:a", "due<5m", "size>1M", "route:a", "user:a", "client:a", "listener:a"):
        with pytest.raises(QueryError, match="means nothing in the history"):
            reader.history(parse([word], NOW))
    with pytest.raises(QueryError, match="state: means nothing in the history; known there: age< code: dest:"):
        reader.history(parse(["state:held"], NOW))
    for cursor in ("x", "-1", "1.5", "9" * 30, "²"):
        with pytest.raises(QueryError, match="not a cursor of the history"):
            reader.history(parse([], NOW), after=cursor)


def test_the_log_merges_what_the_disk_knows(filled: Filled, reader: Reader) -> None:
    filled.journal("start", at=NOW, text="mailtui 0.1")
    filled.journal("hold", at=NOW + 3, who="ann", command="queue hold", query="to:*", recipients=0, reason="spam")
    filled.attempt(11, 1, at=NOW + 1, code=421, reply="later")
    filled.attempt(11, 1, at=NOW + 2, code=550, enhanced="5.1.1", reply="unknown")
    filled.past(11, 1, "a@a.example", result=BOUNCED, at=NOW + 2.5, code=550, enhanced="5.1.1", reply="unknown")
    filled.past(
        0, 0, "b@b.example", result=REFUSED, at=NOW + 4, code=554, enhanced="5.7.1", reply="no", host="192.0.2.1"
    )
    log = reader.log()
    me = {"id": ids.encode(11), "rid": ids.rid(11, 1)}
    later = {"host": "mx.example", "code": "421", "enhanced": "4.7.0", "text": "later"}
    people = {"from": "bob@sender.example", "to": "a@a.example"}
    unknown = {"host": "mx.example", "remote_id": "R1", "code": "550", "enhanced": "5.1.1", "text": "unknown"}
    assert log[:3] == [
        {"at": NOW, "event": "start", "text": "mailtui 0.1"},
        {"at": NOW + 1, "event": "deferred"} | me | later,
        {"at": NOW + 2.5, "event": "bounced"} | me | people | unknown,  # told once, not as an attempt too
    ]
    hold = {"who": "ann", "command": "queue hold", "query": "to:*", "recipients": 0, "reason": "spam"}
    assert log[3] == {"at": NOW + 3, "event": "hold"} | hold
    refused = {
        "event": "refused",
        "from": "bob@sender.example",
        "to": "b@b.example",
        "client": "192.0.2.1",
        "rule": "R1",
    }
    assert log[4] == {"at": NOW + 4, "code": "554", "enhanced": "5.7.1", "text": "no"} | refused
    assert reader.log(2) == log[-2:]
    assert reader.log(0) == []


def test_a_reader_cannot_write(filled: Filled, reader: Reader) -> None:
    with pytest.raises(Exception, match="readonly"):
        reader._connection.execute("DELETE FROM recipients")


def test_a_stopped_queue_is_read_without_touching_its_directory(filled: Filled) -> None:
    number = filled.add(to("a@a.example"))
    filled.connection.close()
    names = sorted(p.name for p in filled.state_dir.iterdir())
    assert names == ["queue.db"]
    reader = Reader(filled.state_dir, offline=True)
    assert [row.id for row in reader.list(parse([], NOW))] == [number]
    assert sorted(p.name for p in filled.state_dir.iterdir()) == names
    reader.close()


def test_what_a_crash_left_in_the_wal_is_read(filled: Filled) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tests.queue.filled import Filled, to\n"
        "f = Filled(Path(sys.argv[1])); f.add(to('a@a.example'), claims=[1]); os._exit(0)"
    )
    state = filled.state_dir / "crashed"
    state.mkdir()
    subprocess.run([sys.executable, "-c", script, str(state)], check=True, env=os.environ | {"PYTHONPATH": os.curdir})
    assert path_of(state).with_name("queue.db-wal").stat().st_size > 0
    reader = Reader(state, offline=True)
    rows = reader.list(parse([], NOW), claimed=reader.orphans())
    assert [(row.recipient, row.state) for row in rows] == [("a@a.example", "queued")]
    reader.close()


def test_awkward_state_directories_are_opened(tmp_path: Path) -> None:
    state = tmp_path / "a b?mode=rw#%41ü"
    state.mkdir()
    Filled(state).connection.close()
    for offline in (False, True):
        reader = Reader(state, offline=offline)
        assert reader.list(parse([], NOW)) == []
        reader.close()
