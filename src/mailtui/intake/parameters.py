"""The parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), and RET, ENVID, NOTIFY and
ORCPT (RFC 3461, RFC 6533).

Promises: what is returned is fit to be stored, shown and sent on as it is: no blank, no control character, nothing that
could end a command line, also after decoding; each keyword is given once. Every error is the SmtpError to answer with:
501 for a bad value or a keyword given twice, 555 for a keyword that is not known (RFC 5321 section 4.1.1.11).
"""

import re
from typing import NamedTuple

from mailtui.address import AddressError, parse_parameters
from mailtui.model import SmtpError

# RFC 1870 section 5: up to 20 digits.
_SIZE = re.compile(r"[0-9]{1,20}")

# xtext, RFC 3461 section 4: printable ASCII but `+` and `=`, or `+` and two digits, upper case. What these stand for
# must be printable ASCII or a blank (sections 4.2 and 4.4), so that no decoder brings forth a line end.
_XTEXT = r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+"
_ENVID = re.compile(_XTEXT)
# addr-type is an atom (RFC 3461 section 4.2), but `+` and `=`, which the value of a parameter does not hold.
_ORCPT = re.compile(rf"([A-Za-z0-9!#$%&'*/?^_`{{|}}~-]+);({_XTEXT})")
# RFC 6533 section 3: QCHAR, UTF-8 where SMTPUTF8 is in force, or \x{HEX}. The escapes that the RFC has for control
# characters, and those that stand for no character, are refused.
_EMBEDDED = (
    r"\\x\{(?:20|2B|3D|5C|[A-F][0-9A-F]|[1-9A-F][0-9A-F]{2}|(?:[1-9A-CEF][0-9A-F]|D[0-7])[0-9A-F]{2}"
    r"|[1-9A-F][0-9A-F]{4}|10[0-9A-F]{4})\}"
)
_ORCPT_UTF8 = re.compile(rf"[Uu][Tt][Ff]-8;(?:[!-*,-<>-\[\]-~]|[^\x00-\x9f]|{_EMBEDDED})+")

# RFC 3461 section 4.4, and section 5.4 for what a server must be able to take of ORCPT.
ENVID_LIMIT = 100
ORCPT_LIMIT = 500
# RFC 4954 section 3, item 6: AUTH adds 500 characters to the length of MAIL.
AUTH_LIMIT = 500

_WISHES = ("SUCCESS", "FAILURE", "DELAY")


class MailParameters(NamedTuple):
    """What MAIL said that stays with the message; SIZE and BODY are judged and forgotten: the data tell."""

    smtputf8: bool = False
    ret: str = ""  # "" | FULL | HDRS
    envid: str = ""  # as given


class RcptParameters(NamedTuple):
    """What RCPT said."""

    notify: str = ""  # "" | NEVER | some of SUCCESS, FAILURE and DELAY with commas, in the order given
    orcpt: str = ""  # as given: type;xtext


NONE = MailParameters()


def mail_parameters(raw: bytes, size_limit: int, *, auth: bool = False) -> MailParameters:
    """The parameters of MAIL; a SIZE above `size_limit` is refused with 552 (RFC 1870 section 6.1).

    `auth`: AUTH is offered, so its parameter is known. It is checked and forgotten: it never logs anybody in, and we
    trust nobody's word for whose mail it is (RFC 4954 section 5)."""
    smtputf8, ret, envid = False, "", ""
    for keyword, value in _split(raw, utf8=False):
        if keyword == "SIZE":
            if value is None or not _SIZE.fullmatch(value):
                raise _bad("SIZE must be a number of octets")
            if int(value) > size_limit:
                raise SmtpError(552, "5.3.4", f"Message is larger than {size_limit} octets", "message-size")
        elif keyword == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                raise _bad("BODY must be 7BIT or 8BITMIME")
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise _bad("SMTPUTF8 has no value")
            smtputf8 = True
        elif keyword == "AUTH" and auth:
            if value is None or not (value == "<>" or (len(value) <= AUTH_LIMIT and _ENVID.fullmatch(value))):
                raise _bad(f"AUTH must be <> or xtext of at most {AUTH_LIMIT} characters (RFC 4954 section 5)")
        elif keyword == "RET":
            ret = value.upper() if value is not None else ""
            if ret not in ("FULL", "HDRS"):
                raise _bad("RET must be FULL or HDRS")
        elif keyword == "ENVID":
            if value is None or len(value) > ENVID_LIMIT or not _ENVID.fullmatch(value):
                raise _bad(f"ENVID must be xtext of at most {ENVID_LIMIT} characters (RFC 3461 section 4)")
            envid = value
        else:
            raise SmtpError(555, "5.5.4", f"MAIL parameter {keyword[:40]} is not known here", "parameters")
    return MailParameters(smtputf8, ret, envid) if smtputf8 or ret or envid else NONE


def rcpt_parameters(raw: bytes, *, utf8: bool) -> RcptParameters:
    """The parameters of RCPT. `utf8`: MAIL said SMTPUTF8, so that ORCPT may hold UTF-8 as it is."""
    notify = orcpt = ""
    for keyword, value in _split(raw, utf8=utf8):
        if keyword == "NOTIFY":
            notify = value.upper() if value is not None else ""
            wishes = notify.split(",")
            if notify != "NEVER" and not (len(wishes) == len(set(wishes)) and all(wish in _WISHES for wish in wishes)):
                raise _bad("NOTIFY must be NEVER, or some of SUCCESS, FAILURE and DELAY, each once")
        elif keyword == "ORCPT":
            if value is None or len(value.encode()) > ORCPT_LIMIT or not _is_orcpt(value):
                raise _bad(f"ORCPT must be type;xtext of at most {ORCPT_LIMIT} octets (RFC 3461 section 4.2)")
            orcpt = value
        else:
            raise SmtpError(555, "5.5.4", f"RCPT parameter {keyword[:40]} is not known here", "parameters")
    return RcptParameters(notify, orcpt)


def _is_orcpt(value: str) -> bool:
    if _ORCPT_UTF8.fullmatch(value):
        return True
    match = _ORCPT.fullmatch(value)
    return match is not None and match[1].lower() != "utf-8"


def _split(raw: bytes, *, utf8: bool) -> list[tuple[str, str | None]]:
    """The parameters, each keyword once."""
    try:
        parameters = parse_parameters(raw, utf8=utf8)
    except AddressError as error:
        raise _bad(f"Syntax of parameters: {error}") from None
    if len(parameters) > 1:
        seen: set[str] = set()
        for keyword, _ in parameters:
            if keyword in seen:
                raise _bad(f"{keyword[:40]} is given twice")
            seen.add(keyword)
    return parameters


def _bad(text: str) -> SmtpError:
    return SmtpError(501, "5.5.4", text, "parameters")
