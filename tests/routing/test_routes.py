"""The grammar of MATCH and TARGET, and which row of the table wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.routing.routes import (
    Hop,
    Match,
    Route,
    RouteTable,
    Target,
    parse_match,
    parse_target,
    unsupported,
)


def hop(scheme: str, host: str, port: int = 0, mx: bool = False, path: str = "") -> Hop:
    return Hop(scheme, host, port, mx, path)


HOPS = [
    ("mx", hop("smtp", "", mx=True)),
    ("MX", hop("smtp", "", mx=True)),
    ("smtp://[mailbox.internal]:25", hop("smtp", "mailbox.internal", 25)),
    ("smtp://[Mail_Box]", hop("smtp", "mail_box")),
    ("smtp://[192.0.2.1]:2525", hop("smtp", "192.0.2.1", 2525)),
    ("smtp://[2001:DB8::1]:25", hop("smtp", "2001:db8::1", 25)),
    ("smtp://[IPv6:2001:db8::1]", hop("smtp", "2001:db8::1")),
    ("smtp://Example.COM:2525", hop("smtp", "example.com", 2525, mx=True)),
    ("smtp://example.com.", hop("smtp", "example.com", mx=True)),
    ("smtp://straße.example", hop("smtp", "xn--strae-oqa.example", mx=True)),
    ("SMTPS://[relay.example]", hop("smtps", "relay.example", 465)),
    ("smtps://example.com:1465", hop("smtps", "example.com", 1465, mx=True)),
    ("lmtp://[localhost]:24", hop("lmtp", "localhost", 24)),
    ("lmtp:unix:/run/dovecot/lmtp", hop("lmtp", "", path="/run/dovecot/lmtp")),
    ("127.0.0.1:2526", hop("smtp", "127.0.0.1", 2526)),
    ("relay.example.net:587", hop("smtp", "relay.example.net", 587)),
    ("localhost:25", hop("smtp", "localhost", 25)),
    ("[::1]:2526", hop("smtp", "::1", 2526)),
]


@pytest.mark.parametrize(("text", "expected"), HOPS)
def test_one_next_hop(text: str, expected: Hop) -> None:
    target = parse_target(text)
    assert target == Target("relay", ((expected,),))
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("defer", Target("defer")),
        ("Hold", Target("hold")),
        ("discard", Target("discard")),
        ("error:5.1.2 no such, domain | here", Target("error", (), "5.1.2", "no such, domain | here")),
        ("error: 4.7.1", Target("error", (), "4.7.1", "")),
    ],
)
def test_what_is_no_next_hop(text: str, expected: Target) -> None:
    assert parse_target(text) == expected
    assert parse_target(str(expected)) == expected


def test_lists() -> None:
    target = parse_target("smtp://[a.example]:25, smtp://[b.example]|mx | smtp://c.example")
    a, b, c = hop("smtp", "a.example", 25), hop("smtp", "b.example"), hop("smtp", "c.example", mx=True)
    assert target.groups == ((a, b), (hop("smtp", "", mx=True),), (c,))
    assert str(target) == "smtp://[a.example]:25,smtp://[b.example]|mx|smtp://c.example"
    assert parse_target(str(target)) == target


BAD_TARGETS = {
    "": "a target is missing",
    "mxx": "is not a route target, expected HOST:PORT",
    "relay.example.net": "is not a route target",
    "[relay.example.net]": "is not a route target",
    "http://[x.example]:80": "unknown scheme",
    "smtp://": "names no domain",
    "smtp://[]:25": "names no host",
    "smtp://[a b]:25": "names no host",
    "smtp://[999.1.1.1]:25": "names no host",
    "smtp://[fe80::1%eth0]:25": "names no host",
    "smtp://[a.example]25": "broken bracket",
    "smtp://[a.example:25": "broken bracket",
    "smtp://[a.example]:": "has no port",
    "smtp://[a.example]:0": "has no port",
    "smtp://[a.example]:65536": "has no port",
    "smtp://[a.example]:smtp": "has no port",
    "smtp://[a.example]:25/": "ends in /",
    "smtp://192.0.2.1:25": "address without brackets",
    "smtp://2001:db8::1": "address without brackets",
    "smtp://user:secret@relay.example:587": "auth=USER",
    "smtp://-bad-.example": "names no domain",
    "lmtp://example.com:24": "has no brackets",
    "lmtp:unix:relative": "no absolute path",
    "lmtp:unix:": "no absolute path",
    "::1:25": "without brackets",
    "127.0.0.1:": "has no port",
    "smtp://[a.example]:25,": "a target is missing",
    "smtp://[a.example]:25||mx": "a target is missing",
    "smtp://[a.example]:25|defer": "stands alone",
    "hold,mx": "stands alone",
    "error:": "enhanced status code",
    "error:no such domain": "enhanced status code",
    "error:2.0.0 fine": "enhanced status code",
    "error:5.1.2 böse": "printable ASCII",
    "error:5.1.2 " + "x" * 500: "printable ASCII",
}


@pytest.mark.parametrize(("text", "what"), BAD_TARGETS.items())
def test_bad_target_says_what_is_wrong_in_one_line(text: str, what: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_target(text)
    message = str(caught.value)
    assert what in message
    assert "\n" not in message and message.isprintable()


PIECES = [*'aé.@*[]:/|," \x1b\n1%-_\u202e\\<>', "smtp://", "lmtp:unix:/", "error:5.1.2 ", "from:", "İ", "mx", "IPv6:"]


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_text_is_a_target_or_a_value_error_in_one_line(text: str) -> None:
    for parse in (parse_target, parse_match):
        try:
            parsed = parse(text)
        except ValueError as error:
            assert str(error).isprintable()
        else:
            assert parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Example.COM", Match(False, "domain", "example.com")),
        (".Example.com", Match(False, "subdomains", "example.com")),
        ("*", Match(False, "any")),
        ("User@Example.com", Match(False, "address", "user@example.com")),
        ('"a b"@example.com', Match(False, "address", '"a b"@example.com')),
        ("[192.0.2.1]", Match(False, "domain", "[192.0.2.1]")),
        ("user@[192.0.2.1]", Match(False, "address", "user@[192.0.2.1]")),
        ("straße.example", Match(False, "domain", "xn--strae-oqa.example")),
        ("from:*", Match(True, "any")),
        ("FROM: ann@example.com", Match(True, "address", "ann@example.com")),
        ("from:.example.com", Match(True, "subdomains", "example.com")),
    ],
)
def test_match(text: str, expected: Match) -> None:
    assert parse_match(text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "expected an address, domain"),
        ("*.example.com", "write .example.com for its subdomains"),
        ("*@example.com", "write example.com for a domain"),
        ("@example.com", "write example.com for a domain"),
        ("exa mple.com", "is not a route match"),
        (".", "is not a route match"),
        (".[192.0.2.1]", "has no subdomains"),
        ("192.0.2.1", "in brackets"),
        ("from:", "is not a route match"),
        ("from:<>", "is not a route match"),
        ("from:from:x.example", "is not a route match"),
        ("evil\n.example", "is not a route match"),
        ("@\x1b[2J", "write ?[2J for a domain"),
    ],
)
def test_bad_match_says_what_is_wrong_in_one_line(text: str, what: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_match(text)
    assert what in str(caught.value)
    assert str(caught.value).isprintable()


def table(*matches: str) -> RouteTable:
    return RouteTable(Route(match, parse_target("mx")) for match in matches)


PRECEDENCE = [
    # rows in the table, recipient, sender, the row that wins
    (["*", "example.com"], "user@example.com", "", "example.com"),
    (["example.com", "user@example.com"], "user@example.com", "", "user@example.com"),
    (["example.com", "user@example.com"], "USER@example.com", "", "user@example.com"),
    (["example.com", "user@example.com"], "other@example.com", "", "example.com"),
    (["example.com"], "user@sub.example.com", "", None),
    ([".example.com"], "user@example.com", "", None),
    ([".example.com"], "user@a.b.example.com", "", ".example.com"),
    ([".example.com", ".b.example.com"], "user@a.b.example.com", "", ".b.example.com"),
    ([".example.com", "a.b.example.com"], "user@a.b.example.com", "", "a.b.example.com"),
    ([".ample.com"], "user@example.com", "", None),
    ([], "user@example.com", "", None),
    (["*"], "user@example.com", "", "*"),
    (["from:ann@corp.example"], "user@example.com", "ann@corp.example", "from:ann@corp.example"),
    (["from:ann@corp.example"], "user@example.com", "bob@corp.example", None),
    (["from:corp.example"], "user@example.com", "Ann@CORP.example", "from:corp.example"),
    (["from:.corp.example"], "user@example.com", "ann@eu.corp.example", "from:.corp.example"),
    (["from:corp.example", "from:ann@corp.example"], "u@e.example", "ann@corp.example", "from:ann@corp.example"),
    # the recipient before the sender: mail for our own domains goes home whoever sends it
    (["example.com", "from:ann@corp.example"], "user@example.com", "ann@corp.example", "example.com"),
    ([".example.com", "from:ann@corp.example"], "user@a.example.com", "ann@corp.example", ".example.com"),
    # but `*` says less about a recipient than any row says about a sender
    (["*", "from:corp.example"], "user@example.com", "ann@corp.example", "from:corp.example"),
    (["*", "from:*"], "user@example.com", "ann@corp.example", "*"),
    (["from:*"], "user@example.com", "ann@corp.example", "from:*"),
    # the null sender matches `*` only
    (["from:corp.example"], "user@example.com", "", None),
    (["from:*"], "user@example.com", "", "from:*"),
    (["[192.0.2.1]", "*"], "user@[192.0.2.1]", "", "[192.0.2.1]"),
    (['"a b"@example.com'], '"A b"@EXAMPLE.com', "", '"a b"@example.com'),
]


@pytest.mark.parametrize(("rows", "recipient", "sender", "winner"), PRECEDENCE)
def test_most_specific_row_wins(rows: list[str], recipient: str, sender: str, winner: str | None) -> None:
    for order in (rows, rows[::-1]):
        found = table(*order).find(recipient, recipient.rpartition("@")[2].lower(), sender)
        assert (found.match if found else None) == winner


def test_domain_alone_meets_rows_of_domains_only() -> None:
    rows = table("user@example.com", "example.com")
    found = rows.find("", "example.com", "")
    assert found is not None and found.match == "example.com"


def test_row_given_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="given twice"):
        table("example.com", "EXAMPLE.com.")


@pytest.mark.parametrize(
    ("target", "options", "what"),
    [
        ("mx", {}, None),
        ("smtp://[a.example]:25|mx", {}, None),
        ("hold", {}, None),
        ("smtps://[a.example]", {}, None),
        ("mx|lmtp:unix:/run/lmtp", {}, None),
        ("smtp://[a.example]", {"auth": "ann"}, None),
        ("smtp://a.example", {"auth": "ann", "tls": "verify"}, None),
        ("smtp://[127.0.0.1]|smtp://[localhost]:26", {"auth": "ann", "tls": "encrypt"}, None),
        ("smtp://[a.example]", {"source": "192.0.2.1"}, None),
        ("smtp://[a.example]", {"tls": "dane"}, "tls=dane is not supported"),
        ("hold", {"tls": "mta-sts"}, "tls=mta-sts is not supported"),
        ("mx", {"auth": "ann"}, "whatever hosts the DNS names"),
        ("smtp://[127.0.0.1]|mx", {"auth": "ann"}, "whatever hosts the DNS names"),
        ("smtp://[a.example]", {"auth": "ann", "tls": "encrypt"}, "only with tls=verify"),
        ("smtp://[127.0.0.1]|smtp://[a.example]", {"auth": "ann", "tls": "encrypt"}, "only with tls=verify"),
        ("smtp://[127.0.0.1]", {"auth": "ann", "tls": "may"}, "only with tls=encrypt"),
        ("smtp://localhost", {"auth": "ann", "tls": "encrypt"}, "only with tls=verify"),
        ("smtp://[a.example]", {"auth": "ann smith"}, "no user name"),
        ("smtps://[a.example]", {"tls": "none"}, "TLS from the start"),
        ("lmtp:unix:/run/lmtp", {"auth": "ann"}, "Unix socket"),
        ("lmtp:unix:/run/lmtp", {"source": "192.0.2.1"}, "Unix socket"),
        ("lmtp:unix:/run/lmtp", {"tls": "verify"}, "Unix socket"),
        ("smtp://[192.0.2.7]", {"source": "2001:db8::1"}, "IP version"),
        ("smtp://[a.example]", {"source": "here"}, "no IP address"),
    ],
)
def test_a_row_whose_options_contradict_its_target_is_refused(
    target: str, options: dict[str, str], what: str | None
) -> None:
    why = unsupported(parse_target(target), **options)
    if what is None:
        assert why is None
    else:
        assert why is not None
        assert what in why
        assert "\n" not in why
