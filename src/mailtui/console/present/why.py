"""Why it is still here, as lines: the sentence, then the evidence, of each recipient; and the card beside the table."""

from collections.abc import Sequence

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Document, Line
from mailtui.console.present.attempts import attempt_lines, newest_first, reply_role, took
from mailtui.console.present.rows import reply
from mailtui.console.present.text import clamp, paragraph, shorten, title

# A message may have a thousand recipients; nobody reads more reasons than these, and the queue filters the rest.
RECIPIENTS = 20

_STATES = {"active": "good", "held": "warn", "leaving": "bad"}


def why_lines(whys: Sequence[Document], message: Document, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """The whole tab. `whys` come in the order in which they are to stand."""
    lines: list[Line] = []
    known = {str(one.get("rid")): one for one in message.get("recipients", ())}
    for why in whys[:RECIPIENTS]:
        lines += [*reason_lines(why, known.get(str(why.get("rid")), {}), width, now, glyphs), []]
    if len(whys) > RECIPIENTS:
        more = f"... and {words.amount(len(whys) - RECIPIENTS, 'more recipient')}; filter id:{message.get('id')}"
        lines += [[(more, "dim")], []]
    return [*lines, *envelope_lines(message, width, now)]


def reason_lines(why: Document, row: Document, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """The sentence of one recipient and what it rests on."""
    state = words.cut(str(why.get("state", ""))[:40], 12, glyphs.ellipsis)
    arrived = words.moment(row.get("arrived"))
    right = f"{state} {words.age(now - arrived)}" if arrived is not None else state
    who = clamp(str(why.get("recipient", "")), width)
    head: Line = [(words.cut(who, max(8, width - words.cells(right) - 2), glyphs.ellipsis), "strong")]
    space = width - words.cells(head[0][0]) - words.cells(right)
    lines = [[*head, (" " * max(1, space), ""), (right, _STATES.get(state, ""))]]
    lines += paragraph(sentence(str(why.get("because") or "")), width)
    limiter = str(why.get("limiter") or "-")
    if why.get("since"):
        limiter += f", for {words.since(why['since'], now)}"
    facts = [
        ("Limiter", limiter),
        ("Released", str(why.get("releases") or "")),
        ("Next try", when(why.get("next_attempt"), now)),
        ("Given up", when(why.get("expires"), now)),
        ("Rule", str(why.get("rule") or "")),
        ("Last reply", _said(row)),
        ("Next hop", str(row.get("next_hop") or "")),
        ("Route", str(row.get("route") or "")),
    ]
    return [*lines, *facts_lines(facts, width)]


def envelope_lines(message: Document, width: int, now: float) -> list[Line]:
    """Who sent what, when and from where."""
    if not message:
        return []
    arrived = words.moment(message.get("arrived"))
    ago = f", {words.age(now - arrived)} ago" if arrived is not None else ""
    client = " ".join(
        part for part in (str(message.get("client_name") or ""), f"[{message.get('client') or '-'}]",
                          f"helo {message['helo']}" if message.get("helo") else "") if part
    )  # fmt: skip
    subject = str(message.get("subject") or "-")
    facts = [
        ("Subject", subject),
        ("", neutralised(subject)),
        ("From", str(message.get("sender") or "<> (a bounce)")),
        ("Size", words.size(message.get("size"))),
        ("Arrived", words.clock(message.get("arrived"), now) + ago),
        ("Client", client),
        ("User", str(message.get("user") or "")),
        ("By", " ".join(str(message[key]) for key in ("listener", "protocol", "tls") if message.get(key))),
        ("Message-ID", str(message.get("message_id") or "")),
    ]
    return [title("MESSAGE", width, " "), *facts_lines(facts, width)]


def facts_lines(facts: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """Name and value a line; what has no value is left out."""
    lines: list[Line] = []
    for name, value in facts:
        if value:
            lines += paragraph(value, width, first=[(words.fit(f"  {name}", 13), "dim")])
    return lines


def card(row: Document, whys: Sequence[Document], message: Document, width: int, now: float, glyphs: Glyphs
         ) -> list[Line]:  # fmt: skip
    """What stands beside the table of the row under the cursor."""
    lines: list[Line] = [title(str(row.get("rid", "")), width, " ")]
    for why in [one for one in whys if one.get("rid") == row.get("rid")][:1]:
        lines += reason_lines(why, row, width, now, glyphs)
    mine = newest_first([one for one in message.get("attempts", ()) if one.get("rid") == row.get("rid")])
    if mine:
        lines += [[], title("LAST ATTEMPTS", width, glyphs.rule)]
        for one in mine[:5]:
            lines.append(
                [(f"{words.clock(one.get('started'), now)} ", ""), (f"{took(one)} ", "dim"),
                 (f"{one.get('host') or one.get('address') or '-'}", "")]
            )  # fmt: skip
            lines += paragraph(reply(one) or "no reply", width, reply_role(one), indent=2)[:3]
    lines += [[], *envelope_lines(message, width, now)]
    return [shorten(line, width, glyphs.ellipsis) for line in lines]


def why_and_attempts(whys: Sequence[Document], message: Document, width: int, now: float, glyphs: Glyphs
                     ) -> list[Line]:  # fmt: skip
    """The first page of a message on a small screen: why, and below it the last attempts."""
    attempts = newest_first(message.get("attempts", ()))
    if not attempts:
        return why_lines(whys, message, width, now, glyphs)
    more = f"{len(attempts)} in all: a" if len(attempts) > 5 else ""
    lines = why_lines(whys, message, width, now, glyphs)
    return [*lines, [], title("ATTEMPTS", width, glyphs.rule, more),
            *attempt_lines(attempts[:5], width, now, glyphs)]  # fmt: skip


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    if not text:
        return "No reason is known."
    return text[0].upper() + text[1:] + ("" if text[-1] in '.!?"' else ".")


def when(text: object, now: float) -> str:
    """`10:22:01, in 41m`."""
    at = words.moment(text)
    if at is None:
        return ""
    return f"{words.clock(text, now)}, {'now' if at <= now else 'in ' + words.age(at - now)}"


def neutralised(*texts: str) -> str:
    """How many characters were made harmless in what is shown."""
    count = sum(text.count("\N{REPLACEMENT CHARACTER}") for text in texts)
    return f"{words.amount(count, 'control or invisible character')} neutralised" if count else ""


def _said(row: Document) -> str:
    said = reply(row, "last_")
    return f'"{said}"' + (f" from {row['last_host']}" if row.get("last_host") else "") if said else ""
