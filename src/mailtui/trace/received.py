"""One Received line, read as well as it can be, whoever wrote it.

RFC 5321 section 3.7.2 asks for "extremely robust" handling: there are as many forms as mail systems. The reader knows
those of Postfix, Exim, Sendmail, qmail and its patches, Exchange, Gmail, Courier, OpenSMTPD, CommuniGate, fetchmail,
amavis, Dovecot and of UUCP days, and takes from every other line what can be seen.

Promises: any input gives a `Received`; nothing raises; the time is linear in the input, and the input is cut at
`LIMIT`; the texts hold printable characters only. The address is the one that the receiving server saw, not what the
client said of itself; text inside a comment or a quoted string never counts as a clause.
"""

import ipaddress
import re
from dataclasses import dataclass, field

from mailtui.trace.dates import Stamp, read_date

# RFC 5322 lets a line have 998 octets and a field have many lines; the longest honest ones have about 2 KiB.
LIMIT = 8192

# Longer than any domain (255) or mailbox (320 with its quotes); what is longer is only there to fill the screen.
FIELD_LIMIT = 400

# Weekday, day, month, year, time, half, zone, offset.
_DATE_WORDS = 8

_CLAUSES = frozenset(("from", "by", "via", "with", "id", "for", "tls"))

# A local part has at most 64 octets, quoted 128: a longer run between two quotes is not a quoted string.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.){0,254}"')
_BLANKS = re.compile(r"[ \t\r\n]+")
_MARK = re.compile(r'\\.|["()]')
_WORD = re.compile(r'[^ "();]+|["()]')

# What the client said at HELO, where the server puts it into a comment: qmail, CommuniGate "HELO x"; Exim "helo=x".
_HELO = re.compile(r"(?:^|[ ,;(])(?:helo|ehlo)(?:=| +)(\[[^\]]*\]?|[^ ,;()\[\]]+)", re.IGNORECASE)
# Not after "@" or "=": there it belongs to an address or a parameter that the client chose.
_BRACKETED = re.compile(r"(?<![@=])\[([^\[\] ]{2,80})\]")
_LITERAL = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")

# RFC 3848, RFC 6531 section 4.3, and the readers of mailboxes (fetchmail, webmail).
_TLS_PROTOCOL = re.compile(
    r"(?:(?:UTF8)?(?:E?SMTP|LMTP)SA?|ASMTPS|(?:HTTP|IMAP|POP3?)S|E?SMTP[+/_-](?:TLS|SSL)|(?:TLS|SSL)(?:v?[0-9][0-9._]*)?)",
    re.IGNORECASE,
)
_TLS_COMMENT = re.compile(
    r"^(?:TLS|SSL)(?:v?[0-9][0-9._]*)?(?:$|[,:;/]| (?!\[))|(?:^|[ ,(])using (?:TLS|SSL)|(?:^|[ ,(])version=(?:TLS|SSL)"
    r"|(?:^|[ ,])TLS: ?(?:TLS|SSL)",
    re.IGNORECASE,
)
# qmail's TLS patch: "with AES256-SHA encrypted SMTP", "with (TLSv1 AES256-SHA encrypted) SMTP"
_ENCRYPTED = re.compile(r"[^ ]+(?: [^ ]+)? encrypted (?P<protocol>[^ ]+)", re.IGNORECASE)
_ENCRYPTED_COMMENT = re.compile(r"(?!no |not )[^ ]+(?: [^ ]+)? encrypted", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Received:
    """What a Received line says. A text that it does not say is ""; names stand without brackets and final dot."""

    from_: str = ""  # as the client named itself (EHLO), where the line tells
    reverse: str = ""  # the name that the server found for the address, "unknown" if it says so
    by: str = ""
    protocol: str = ""  # as written: ESMTPS, esmtps, Microsoft SMTP Server
    ip: str = ""  # the address that the server saw
    tls: bool = False  # there is evidence of TLS
    id: str = ""
    for_: str = ""
    time: float | None = None  # seconds since the epoch
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Clause:
    words: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def text(self) -> str:
        return " ".join(self.words)


_Item = tuple[str, str]  # ("word" | "comment" | ";", its text)


def parse_received(value: bytes | str) -> Received:
    """Read the value of a Received field, folded or not, without its name. Never raises (RFC 5321 section 3.7.2)."""
    warnings: list[str] = []
    if len(value) > LIMIT:
        warnings.append(f"only the first {LIMIT} of its {len(value)} characters are read")
    cut = len(value) > LIMIT
    value = value[:LIMIT]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    text = _BLANKS.sub(" ", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        warnings.append("it holds control characters")
    items, closed = _items(text)
    if not closed:
        warnings.append("its comments are not balanced")
    head, stamp, tail = _split_date(items)
    when: float | None = None
    if cut:
        pass  # the date stands at the end, which is cut off: any other in the line would be a wrong one
    elif stamp is None:
        warnings.append("it has no date")
    else:
        when = stamp.time
        if stamp.warning:
            warnings.append(stamp.warning)
    clauses = _clauses(head)
    by = clauses.get("by", _Clause())
    name, reverse, ip = _origin(clauses.get("from", _Clause()))
    protocol = (clauses.get("with") or clauses.get("via") or _Clause()).text()
    if (match := _ENCRYPTED.fullmatch(protocol)) is not None:
        protocol = match["protocol"]
    id_words = clauses.get("id", _Clause()).words or _after(tail, "id")
    return Received(
        from_=name,
        reverse=reverse,
        by=_name(by.words[0]) if by.words else "",
        protocol=_shorten(protocol),
        ip=ip,
        tls=_tls(clauses),
        id=_plain(id_words[0]) if id_words else "",
        for_=_plain(clauses.get("for", _Clause()).text()),
        time=when,
        warnings=tuple(warnings),
    )


def _items(text: str) -> tuple[list[_Item], bool]:
    """Words, outermost comments and semicolons in order, and whether every parenthesis has its other half.

    A parenthesis without its other half is a blank, so that an unclosed comment does not swallow the rest.
    """
    ends, closed = _comments(text)
    items: list[_Item] = []
    word: list[str] = []

    def end_word() -> None:
        if word:
            items.append(("word", "".join(word)))
            word.clear()

    at = 0
    while at < len(text):
        char = text[at]
        if char == "(" and at in ends:
            end_word()
            items.append(("comment", " ".join(text[at + 1 : ends[at]].split())))
            at = ends[at] + 1
        elif char in " ();":
            end_word()
            if char == ";":
                items.append((";", ""))
            at += 1
        else:
            match = _QUOTED.match(text, at) or _WORD.match(text, at)
            word.append(match[0] if match else char)
            at = match.end() if match else at + 1
    end_word()
    return items, closed


def _comments(text: str) -> tuple[dict[int, int], bool]:
    """Where each comment that is closed begins and ends, nested ones too."""
    ends: dict[int, int] = {}
    open_at: list[int] = []
    closed = True
    at = 0
    while (mark := _MARK.search(text, at)) is not None:
        at = mark.end()
        if mark[0] == "(":
            open_at.append(mark.start())
        elif mark[0] == ")":
            if open_at:
                ends[open_at.pop()] = mark.start()
            else:
                closed = False
        elif mark[0] == '"' and not open_at and (quoted := _QUOTED.match(text, mark.start())) is not None:
            at = quoted.end()
    return ends, closed and not open_at


def _split_date(items: list[_Item]) -> tuple[list[_Item], Stamp | None, list[str]]:
    """The items of the clauses, the date, and the words behind the date (Courier puts its id there).

    The date stands behind the last semicolon outside of comments; in a line without any, at the end.
    """
    last = max((i for i, (kind, _) in enumerate(items) if kind == ";"), default=-1)
    if last >= 0:
        text = " ".join(word for kind, word in items[last + 1 :] if kind == "word")
        stamp = read_date(text)
        return items[:last], stamp, text[stamp.end :].split() if stamp else []
    words = [i for i, (kind, _) in enumerate(items) if kind == "word"]
    for n in range(len(words) - 1, max(len(words) - 1 - _DATE_WORDS, -1), -1):
        start = items[words[n]][1]
        if not start[0].isalnum():
            continue
        stamp = read_date(" ".join(items[i][1] for i in words[n : n + _DATE_WORDS]))
        if stamp is not None:
            if n and read_date(" ".join(items[i][1] for i in words[n - 1 : n - 1 + _DATE_WORDS])) is not None:
                n -= 1  # its weekday
            return items[: words[n]], stamp, []
    return items, None, []


def _clauses(items: list[_Item]) -> dict[str, _Clause]:
    """The clauses by their word; the first of each counts. What stands before all of them is ""."""
    clauses: dict[str, _Clause] = {"": _Clause()}
    current, last = clauses[""], ""
    for i, (kind, text) in enumerate(items):
        word = text.lower() if kind == "word" else ""
        # A host may be called "by": after "from" or "by" it is a name if the line goes on as behind a name.
        named = last in ("from", "by") and not current.words and _ends_name(items, i + 1)
        if word in _CLAUSES and not named and (word != "tls" or "with" in clauses):
            last = word
            current = _Clause()
            clauses.setdefault(word, current)
        elif kind == "word":
            current.words.append(text)
        elif kind == "comment":
            current.comments.append(text)
    return clauses


def _ends_name(items: list[_Item], i: int) -> bool:
    return i < len(items) and (items[i][0] == "comment" or items[i][1].lower() in _CLAUSES)


def _origin(clause: _Clause) -> tuple[str, str, str]:
    """(what the client called itself, the name of its address, its address as the server saw it)."""
    helo = reverse = ip = ""
    comments = []
    for comment in clause.comments:
        said = _HELO.search(comment)
        helo = helo or (_name(said[1]) if said else "")
        comments.append(_HELO.sub(" ", comment))
    for comment in comments:  # Postfix, Sendmail, Exim: "(name [address])"
        for match in _BRACKETED.finditer(comment):
            if not ip and (ip := _address(match[1])):
                before = comment[: match.start()].split()
                reverse = _name(before[-1].rpartition("@")[2]) if before else ""
    for comment in comments:  # qmail, Exchange: "(address)", "(user@address)"
        for word in comment.replace(",", " ").split():
            ip = ip or _address(word.rpartition("@")[2])
    words = clause.words
    for word in words[1:]:  # fetchmail: "from name [address]"
        if (literal := _LITERAL.fullmatch(word)) is not None and not ip:
            ip = _address(literal[1])
    name = _name(" ".join(words[:1] + [word for word in words[1:] if _LITERAL.fullmatch(word) is None]))
    if helo:  # then the word behind "from" is what the server found out
        if not reverse and words and not _address(name):
            reverse = name
        ip = ip or _address(name)
        return helo, reverse, ip
    # Exim, Yahoo, SquirrelMail: no address but that behind "from", and it is the server's finding.
    return name, reverse, ip or _address(name)


def _tls(clauses: dict[str, _Clause]) -> bool:
    """Whether the line holds evidence of TLS: its protocol, a comment as TLS libraries are reported, a `tls` clause."""
    protocol = clauses.get("with", _Clause())
    if any(_TLS_PROTOCOL.fullmatch(word) for word in protocol.words) or _ENCRYPTED.fullmatch(protocol.text()):
        return True
    if any(_ENCRYPTED_COMMENT.fullmatch(comment) for comment in protocol.comments):
        return True
    if any(_TLS_PROTOCOL.fullmatch(word) for word in clauses.get("via", _Clause()).words):
        return True
    registered = clauses.get("tls", _Clause()).words  # RFC 8314 section 4.3; Exim
    if registered and registered[0].lower() not in ("none", "no", "off"):
        return True
    return any(_TLS_COMMENT.search(_HELO.sub(" ", comment)) for c in clauses.values() for comment in c.comments)


def _address(text: str) -> str:
    """The address that `text` is, in its usual form and without a zone; "" if it is none."""
    if not text or len(text) > 80:
        return ""
    text = text.strip("[]")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    if (match := _WITH_PORT.fullmatch(text)) is not None:
        text = match[1]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # Courier: [::ffff:192.0.2.1]
    return str(address)


def _name(text: str) -> str:
    """A host's name without brackets, port and final dot; an address literal as the address."""
    text = text.strip("<>,")
    if (literal := _LITERAL.fullmatch(text)) is not None:
        return _address(literal[1]) or _shorten(literal[1])
    return _shorten(text.strip("[]").rstrip("."))


def _plain(text: str) -> str:
    text = text.rstrip(",")
    if text.startswith("<") and text.endswith(">") and text.count("<") == 1:
        text = text[1:-1]
    return _shorten(text)


def _after(words: list[str], keyword: str) -> list[str]:
    lower = [word.lower() for word in words]
    return words[lower.index(keyword) + 1 :] if keyword in lower else []


def _shorten(text: str) -> str:
    return text if len(text) <= FIELD_LIMIT else text[:FIELD_LIMIT] + "\N{HORIZONTAL ELLIPSIS}"
