"""The `:` line."""

import pytest

from mailtui.console.commands import Act, CommandError, Show, complete, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("  : ", None),
        ("flush gmail.com", Act("flush", None, {"destination": "gmail.com"}, "")),
        ("flush", Act("flush", None, {}, "")),
        ("hold from:x@y.example age>1h", Act("queue.hold", "from:x@y.example age>1h", {}, "")),
        ("mailtui queue hold 'to:*' --yes --expect 3", Act("queue.hold", "to:*", {}, "")),
        ("bounce to:x --now --reason 'phish wave'", Act("queue.bounce", "to:x", {"now": True}, "phish wave")),
        ("defer --for=2h", Act("queue.defer", None, {"for": "2h"}, "")),
        ("reroute to:x --to smtp://[a.example]:25", Act("queue.reroute", "to:x", {"to": "smtp://[a.example]:25"}, "")),
        ("hold -from:x", Act("queue.hold", "-from:x", {}, "")),
        ("hold subject:'two words'", Act("queue.hold", 'subject:"two words"', {}, "")),
        (
            "dest suspend a.example --for 1h --reason x",
            Act("dest.suspend", None, {"name": "a.example", "for": "1h"}, "x"),
        ),
        ("pause delivery --for 1h", Act("pause", None, {"what": "delivery", "for": "1h"}, "")),
        (
            "route set a.example smtp://[b]:25 tls=encrypt",
            Act("route.set", None, {"match": "a.example", "target": "smtp://[b]:25", "tls": "encrypt"}, ""),
        ),
        ("stop", Act("stop", None, {}, "")),
        ("why 01HZX3V7N8QRS", Show("why", "01HZX3V7N8QRS")),
        ("queue why 01HZX3V7N8QRS.1", Show("why", "01HZX3V7N8QRS.1")),
        ("queue list dest:x", Show("list", "dest:x")),
        ("q", Show("quit", "")),
        ("HOLD to:x", Act("queue.hold", "to:x", {}, "")),
    ],
)
def test_a_line_is_understood(text: str, found: object) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fry", "fry: no such command; there are "),
        ("hold to:x --fast", "--fast: queue hold has no such option; it has --reason"),
        ("defer to:x --for", "--for needs a value"),
        ("why", "why needs one id"),
        ("why a b", "why needs one id"),
        ("dest suspend", "dest suspend needs NAME; for example mailtui dest suspend example.com"),
        ("flush a b", "b: flush takes [DOMAIN]; for example mailtui flush example.com"),
        ("stop now", "now: stop takes no words"),
        ("hold 'x", "a quotation mark is missing its other half"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(CommandError) as error:
        parse(text)
    assert str(error.value).startswith(said)


def test_commands_complete_by_their_beginning() -> None:
    assert complete("flu") == ["flush"]
    assert complete("queue h") == ["queue hold"]
    assert {"reload", "release", "retry", "restore", "resume", "reroute"} <= set(complete("re"))
    assert complete("zzz") == []
