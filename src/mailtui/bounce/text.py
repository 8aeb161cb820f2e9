"""Text from outside as it may stand in a report: printable, one line a field, folded without a change.

Promises: what these functions return holds no control character, no line end and nothing that turns the direction of
writing, so that no reply, address or parameter can add a field, end a part or reach a terminal as a command. Unless
`wide` is asked for (reports that go with SMTPUTF8) it holds nothing beyond ASCII either.
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime

# RFC 5322 section 2.1.1: lines should have 78 characters, and must not have more than 998.
SOFT = 78
HARD = 998
# With a field's name, or with `BLANKS`, still below HARD.
WORD = 900
BLANKS = 50

# A character of UTF-8 has at most so many octets.
WIDEST = 4

# A line of a reply has at most 512 octets (RFC 5321 section 4.5.3.1.5): eight of them say all there is to say.
REPLY_LIMIT = 4000

_XTEXT = re.compile(r"\+([0-9A-Fa-f]{2})")


def one_line(text: str, limit: int = REPLY_LIMIT, *, wide: bool = False) -> str:
    """`text` in one line of at most `limit` characters: line ends and tabs become blanks, what is not printable "?"."""
    if len(text) > limit:
        text = text[:limit] + " [...]"
    text = re.sub(rf"[\r\n\t]+| {{{BLANKS},}}", " ", text)
    return "".join(c if " " <= c <= "~" or (wide and c.isprintable()) else "?" for c in text).strip()


def decode_xtext(text: str) -> str:
    """xtext (RFC 3461 section 4) as the text that it stands for; still from outside."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def utf8_address(text: str, *, wide: bool = False) -> str:
    """An address in the form utf-8-addr-xtext, the one for 7-bit reports; `wide`: as utf-8-addr-unitext (RFC 6533
    section 3)."""
    return "".join(c if _stands(c, wide) and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in text)


def typed_address(address: str, *, wide: bool = False) -> str:
    """An address with its type, as in Final-Recipient: rfc822, or utf-8 if it is not ASCII (RFC 6533 section 3)."""
    return f"rfc822; {one_line(address)}" if address.isascii() else f"utf-8; {utf8_address(address, wide=wide)}"


def original_recipient(orcpt: str, *, wide: bool = False) -> str:
    """ORCPT=type;xtext as the value of Original-Recipient, "" if it is not of that form (RFC 3461 section 4.2)."""
    kind, semicolon, address = orcpt.partition(";")
    kind = one_line(kind)
    if not semicolon or not address or re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind) is None:
        return ""
    if kind.lower() == "utf-8":  # its own encoding, not xtext; what came raw is encoded here
        return f"{kind}; " + "".join(c if _stands(c, wide) else f"\\x{{{ord(c):X}}}" for c in address)
    return f"{kind}; {one_line(decode_xtext(address))}"


def _stands(character: str, wide: bool) -> bool:
    return "!" <= character <= "~" or (wide and character > "\x7f" and character.isprintable())


def field(name: str, value: str) -> str:
    """A field of `value` (from the functions above), folded at its blanks, so that unfolding gives it back.

    Only a word that no line can hold is broken in the middle.
    """
    lines = [f"{name}:"]
    longest = WORD if value.isascii() else WORD // WIDEST
    for word in re.findall(rf" *[^ ]{{1,{longest}}}", " " + value):
        if lines == [f"{name}:"] or len(lines[-1]) + len(word) <= SOFT:
            lines[-1] += word
        else:
            lines.append(word if word[0] == " " else " " + word)
    return "".join(f"{line}\r\n" for line in lines)


def date(when: float) -> str:
    """A moment (seconds since the epoch) as RFC 5322 has it, with a numeric zone."""
    return format_datetime(datetime.fromtimestamp(when, UTC))
