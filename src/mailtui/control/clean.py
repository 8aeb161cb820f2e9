"""Making text from outside harmless before a person sees it.

A subject, an address or the reply of a remote server is written by strangers: escape sequences can retitle, wipe or
write the clipboard of a terminal, bidi controls and invisible characters can make a line read as another one.
Promises: what `clean` returns holds no control character (C0, C1, DEL), no bidi or format control, no zero-width, tag,
surrogate or private-use character and no line break; each is shown as U+FFFD, none is hidden; other text is unchanged.
"""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Printable by Unicode's categories, and yet invisible or without width: fillers and the grapheme joiner.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")

# A letter carries a few combining marks at most; a heap of them runs over the lines above and below.
_MARKS = re.compile("([\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]{4})"
                    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]+")  # fmt: skip


def clean(text: str) -> str:
    """`text` as it may be shown on one line."""
    if text.isascii() and text.isprintable():
        return text
    return _MARKS.sub(rf"\1{REPLACEMENT}", "".join(map(_shown, text)))


def clean_lines(text: str) -> str:
    """`text` as it may be shown on several lines: line feeds stay, CRLF becomes one; tabs become blanks."""
    return "\n".join(clean(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))


def clean_value(value: object) -> object:
    """A JSON value with every text in it cleaned, keys too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): clean_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_value(item) for item in value]
    return value


def _shown(char: str) -> str:
    if char.isprintable():
        return REPLACEMENT if char in _INVISIBLE else char
    # Of the other separators only the blanks with a width are harmless.
    return (
        " "
        if char in "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
        else REPLACEMENT
    )
