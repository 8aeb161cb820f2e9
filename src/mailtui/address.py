"""Mail addresses: the strict grammar of RFC 5321 and 6531, on octets. The only address parser of the project.

Promises: what was checked is what is stored, routed and sent on. A mailbox that this module has passed holds no
control character, no CR, LF or NUL, no second meaning: its local part stands with minimum quoting (`"a"@x` is `a@x`),
a source route is gone, and percent and bang forms are ordinary local parts that nobody interprets.
"""

import functools
import ipaddress
import re
from dataclasses import dataclass

# RFC 5321 section 4.5.3.1.1 to 4.5.3.1.3, in octets. A path counts its angle brackets.
LOCAL_LIMIT = 64
DOMAIN_LIMIT = 255
PATH_LIMIT = 256
# RFC 1035 section 2.3.4.
LABEL_LIMIT = 63

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"

# The fast path: nearly every address is a dot-atom at a host name.
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@({_DOMAIN})".encode())
_DOMAIN_FORM = re.compile(_DOMAIN)
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LONG_LABEL = re.compile(rb"[^.]{%d}" % (LABEL_LIMIT + 1))
_ONLY_DIGITS = re.compile(r"[0-9.]+")

# RFC 6531 section 3.3 adds every character above 127. Those that are no text (C1 controls, separators, blanks,
# direction marks) or that look like `@` and `.` to a human being or to a mapping further on are refused.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\xa0\u1680\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u2069\u3000\ufeff\ufff9-\ufffb"
    "\uff20\ufe6b\u3002\uff0e\uff61]"
)
_ATOM_UTF8 = r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\x00-\x7f])+"
_DOT_ATOM_UTF8 = re.compile(rf"{_ATOM_UTF8}(?:\.{_ATOM_UTF8})*")
# A quoted string: qtextSMTP and quoted pairs, RFC 5321 section 4.1.2.
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)"')
_PAIR = re.compile(r"\\(.)")

# `<...>`, where a quoted string may hold `>`.
_PATH = re.compile(rb'<((?:[^<>"\\]|"(?:[^"\\]|\\.)*")*)>', re.DOTALL)
# `@one,@two:` before the mailbox, RFC 5321 section 4.1.2 (A-d-l); literals hold colons of their own.
_AT_DOMAIN = rb"@(?:%b|\[[0-9A-Za-z.:]+\])" % _DOMAIN.encode()
_ROUTE = re.compile(rb"%b(?:,%b)*:" % (_AT_DOMAIN, _AT_DOMAIN))
# RFC 5321 section 4.1.2: esmtp-param.
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")
# RFC 6531 section 3.3 adds to the values what is no ASCII.
_PARAMETER_UTF8 = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\xff]+))?")

# Addresses kept parsed: about 1 KiB each, senders and recipients of the last minutes of a busy relay.
CACHE = 16384


class AddressError(ValueError):
    """Not an address; the text says what is wrong. `needs_utf8`: it would be one where SMTPUTF8 was asked for."""

    def __init__(self, text: str, *, needs_utf8: bool = False) -> None:
        super().__init__(text)
        self.needs_utf8 = needs_utf8


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox, RFC 5321 section 4.1.2."""

    text: str  # as stored and sent on: minimum quoting, domain as received
    local: str  # without quotes
    domain: str  # as received; "" only for <postmaster>
    destination: str  # lower-case A-label, or a literal in canonical form; "" only for <postmaster>
    utf8: bool  # holds characters above 127: needs SMTPUTF8


@functools.lru_cache(CACHE)
def parse_mailbox(raw: bytes, *, utf8: bool = False) -> Mailbox:
    """The mailbox of `local@domain` without angle brackets; `postmaster` alone is one too (section 4.5.1).

    `utf8` allows the characters of RFC 6531. Raises AddressError.
    """
    plain = _PLAIN.fullmatch(raw)
    if plain is None or len(raw) > PATH_LIMIT - 2:
        return _parse_unusual(raw, utf8)
    local, domain = plain.group(1).decode("ascii"), plain.group(2).decode("ascii")
    if len(local) > LOCAL_LIMIT:
        raise AddressError(f"the local part is longer than {LOCAL_LIMIT} octets")
    return Mailbox(f"{local}@{domain}", local, domain, _destination_of_name(domain), False)


def _parse_unusual(raw: bytes, utf8: bool) -> Mailbox:
    """Quoted local parts, literals, UTF-8 and errors."""
    text = _decode(raw, utf8)
    if len(raw) > PATH_LIMIT - 2:
        raise AddressError(f"the address is longer than {PATH_LIMIT - 2} octets")
    if text.lower() == "postmaster":
        return Mailbox(text, text, "", "", False)
    quoted = _QUOTED.match(text)
    if quoted is not None:
        local, rest = _PAIR.sub(r"\1", quoted[1]), text[quoted.end() :]
    else:
        local, at, domain = text.partition("@")
        rest = at + domain
        if not local:
            raise AddressError("the local part before @ is missing" if at else "the address is empty")
        if not _DOT_ATOM_UTF8.fullmatch(local):
            raise AddressError("the local part holds characters that must be quoted")
    if not rest.startswith("@"):
        raise AddressError("there is no @domain" if not rest else "there is something between local part and @")
    domain = rest[1:]
    if "@" in domain:
        raise AddressError("there is more than one @")
    canonical = local if _DOT_ATOM_UTF8.fullmatch(local) else '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
    if len(canonical.encode()) > LOCAL_LIMIT:
        raise AddressError(f"the local part is longer than {LOCAL_LIMIT} octets")
    whole = f"{canonical}@{domain}"
    return Mailbox(whole, local, domain, destination_of(domain, strict=True), not whole.isascii())


def _decode(raw: bytes, utf8: bool) -> str:
    """Text of octets from a path or mailbox, nothing in it that no address may hold."""
    if raw.isascii():
        text = raw.decode("ascii")
    else:
        try:
            text = raw.decode("utf-8")  # refuses overlong forms and surrogates, RFC 3629 section 3
        except UnicodeDecodeError:
            raise AddressError("it holds octets that are no UTF-8") from None
        if not utf8:
            raise AddressError("it holds characters above 127, which need SMTPUTF8", needs_utf8=True)
    found = _FORBIDDEN.search(text)
    if found is not None:
        raise AddressError(f"it holds the character U+{ord(found[0]):04X}, which no address may hold")
    return text


def destination_of(domain: str, *, strict: bool = False) -> str:
    """The canonical destination of a domain or address literal; AddressError if it is none.

    Lower-case A-labels without trailing dot (U-labels by RFC 5891), or `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
    `strict` is the grammar of a path, which knows no trailing dot.
    """
    if domain.startswith("["):
        return _destination_of_literal(domain)
    name = domain if strict else domain.removesuffix(".")
    if not name:
        raise AddressError("the domain is empty")
    if not name.isascii():
        name = _to_ascii(name)
    if not _DOMAIN_FORM.fullmatch(name):
        raise AddressError("the domain is no sequence of labels of letters, digits and inner hyphens")
    return _destination_of_name(name)


def _destination_of_name(domain: str) -> str:
    """Of a name that has the form of one."""
    if len(domain) > LABEL_LIMIT and _LONG_LABEL.search(domain.encode("ascii")):
        raise AddressError(f"a label of the domain is longer than {LABEL_LIMIT} octets")
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError(f"the domain is longer than {DOMAIN_LIMIT} octets")
    if domain[-1].isdigit() and _ONLY_DIGITS.fullmatch(domain):
        # It would pass as a domain name by the grammar, but nobody means one.
        raise AddressError("an address in place of a domain stands in brackets: [192.0.2.1]")
    return domain.lower()


def _to_ascii(domain: str) -> str:
    """U-labels to A-labels. Only what IDNA 2008 allows as it stands is taken: no mapping of look-alikes."""
    found = _FORBIDDEN.search(domain)
    if found is not None:
        raise AddressError(f"it holds the character U+{ord(found[0]):04X}, which no address may hold")
    import idna  # costs 20 ms and is rarely needed

    try:
        return ".".join(
            label if label.isascii() else idna.encode(label.lower()).decode("ascii") for label in domain.split(".")
        )
    except idna.IDNAError:  # its text quotes the label: not passed on
        raise AddressError("the domain holds characters that no internationalized domain name may hold") from None


def _destination_of_literal(domain: str) -> str:
    """RFC 5321 section 4.1.3. An IPv4-mapped IPv6 address is the IPv4 address."""
    inner = domain[1:-1] if domain.endswith("]") else ""
    tag, colon, rest = inner.partition(":")
    try:
        if colon and tag.lower() == "ipv6" and "%" not in rest:
            address = ipaddress.IPv6Address(rest)
            mapped = address.ipv4_mapped
            return f"[{mapped}]" if mapped is not None else f"[IPv6:{address.compressed}]"
        if not colon:
            return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        pass
    raise AddressError("the address literal is none: expected [192.0.2.1] or [IPv6:2001:db8::1]")


def parse_path(raw: bytes, *, utf8: bool) -> tuple[Mailbox | None, bytes]:
    """The path at the start of `raw` (`<...>`), and what follows it: its parameters, without the blank before them.

    None stands for the null path `<>`. A source route is recognised and dropped (RFC 5321 section 4.1.1.3 and
    appendix C). Raises AddressError.
    """
    end = raw.find(b">")
    if end > 0 and raw[0] == 60 and raw.find(b'"', 0, end) < 0:
        inner, rest = raw[1:end], raw[end + 1 :]
    else:
        match = _PATH.match(raw)
        if match is None:
            raise AddressError("the address must stand in one pair of angle brackets: <user@example.org>")
        inner, rest = match[1], raw[match.end() :]
    if rest and rest[0] != 32:
        raise AddressError("there is something behind the closing bracket; a blank comes before parameters")
    rest = rest.strip(b" ")
    if not inner:
        return None, rest
    if inner[0] == 64:  # @: a source route
        if len(inner) > PATH_LIMIT - 2:
            raise AddressError(f"the path is longer than {PATH_LIMIT} octets")
        route = _ROUTE.match(inner)
        if route is None:
            raise AddressError("the source route is none: expected <@one.example,@two.example:user@example.org>")
        inner = inner[route.end() :]
    return parse_mailbox(inner, utf8=utf8), rest


def with_ascii_domain(text: str) -> str | None:
    """A mailbox as this module gives it, its domain in A-labels; None if its local part is not ASCII either.

    For those who do not know SMTPUTF8: what differs is how the domain is written (RFC 6531 section 3.2)."""
    if text.isascii():
        return text
    local, _, domain = text.rpartition("@")
    return f"{local}@{destination_of(domain)}" if local.isascii() else None


def parse_parameters(raw: bytes, *, utf8: bool = False) -> list[tuple[str, str | None]]:
    """The parameters of MAIL and RCPT in order: keyword in upper case, value as it stands, None without one.

    RFC 5321 section 4.1.2 (Mail-parameters); `utf8` allows values of RFC 6531. Raises AddressError for what is no
    parameter.
    """
    form = _PARAMETER_UTF8 if utf8 else _PARAMETER
    parameters: list[tuple[str, str | None]] = []
    for word in raw.split(b" "):
        if not word:
            continue
        match = form.fullmatch(word)
        if match is None:
            raise AddressError("a parameter is no KEYWORD or KEYWORD=value")
        keyword, value = match[1].decode("ascii").upper(), match[2]
        if value is None:
            parameters.append((keyword, None))
        else:
            parameters.append((keyword, _decode(value, utf8) if utf8 else value.decode("ascii")))
    return parameters
