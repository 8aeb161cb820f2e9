"""The address grammar: RFC 5321 section 4.1.2, 4.1.3, 4.5.3.1 and RFC 6531 section 3.3."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.address import AddressError, destination_of, parse_mailbox, parse_parameters, parse_path, with_ascii_domain


@pytest.mark.parametrize(
    ("raw", "text", "local", "destination"),
    [
        (b"a@b.example", "a@b.example", "a", "b.example"),
        (b"First.Last+tag@B.Example", "First.Last+tag@B.Example", "First.Last+tag", "b.example"),
        (b"!#$%&'*+/=?^_`{|}~-@b", "!#$%&'*+/=?^_`{|}~-@b", "!#$%&'*+/=?^_`{|}~-", "b"),
        (b'"a"@x', "a@x", "a", "x"),
        (b'"\\a\\b"@x', "ab@x", "ab", "x"),
        (b'"john doe"@x', '"john doe"@x', "john doe", "x"),
        (b'"a.b"@x', "a.b@x", "a.b", "x"),
        (b'"a..b"@x', '"a..b"@x', "a..b", "x"),
        (b'""@x', '""@x', "", "x"),
        (b'"\\"\\\\"@x', '"\\"\\\\"@x', '"\\', "x"),
        (b'"a@b"@x', '"a@b"@x', "a@b", "x"),
        (b'"a>b"@x', '"a>b"@x', "a>b", "x"),
        (b"victim%other@ours", "victim%other@ours", "victim%other", "ours"),
        (b"other!victim@ours", "other!victim@ours", "other!victim", "ours"),
        (b"a@[192.0.2.1]", "a@[192.0.2.1]", "a", "[192.0.2.1]"),
        (b"a@[ipv6:2001:DB8:0::1]", "a@[ipv6:2001:DB8:0::1]", "a", "[IPv6:2001:db8::1]"),
        (b"a@[IPv6:::ffff:192.0.2.1]", "a@[IPv6:::ffff:192.0.2.1]", "a", "[192.0.2.1]"),
        (b"a@xn--bcher-kva.example", "a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
        (b"Postmaster", "Postmaster", "Postmaster", ""),
        (b"a@1.2.3.4a", "a@1.2.3.4a", "a", "1.2.3.4a"),
    ],
)
def test_good_mailboxes(raw, text, local, destination):
    mailbox = parse_mailbox(raw)
    assert (mailbox.text, mailbox.local, mailbox.destination) == (text, local, destination)
    assert not mailbox.utf8


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"a", b"@b", b"a@", b"a@@b", b"a@b@c", b"a b@c", b"a@b c", b".a@b", b"a.@b", b"a..b@c", b"a@.b", b"a@b.",
        b"a@b..c", b"a@-b", b"a@b-", b"a@b_c", b"a(x)@b", b"a@b(x)", b'"a@b', b'a"b"@c', b'"a"b@c', b'"a""b"@c',
        b'"a\\"@b', b"a,b@c", b"a:b@c", b"a;b@c", b"<a@b>", b"a@b>", b"a\\b@c", b'"a"', b'"a"@',
        b"a\r\n@b", b"a@b\r\n", b"a\x00@b", b'"a\x00"@b', b'"a\r\nb"@c', b'"a\\\r"@c', b"a\t@b", b'"a\tb"@c',
        b"a@b\x7f",
        b"a@[1.2.3]", b"a@[1.2.3.256]", b"a@[01.2.3.4]", b"a@[192.0.2.1", b"a@192.0.2.1]", b"a@[IPv6:1]", b"a@1.2.3.4",
        b"a@[IPv6:fe80::1%eth0]", b"a@[2001:db8::1]", b"a@[x400:foo]", b"a@[]", b"a@[192.0.2.1].", b"a@[192.0.2.1]x",
        b"=?utf-8?q?=0d=0aRCPT?=@b.c@d", b"a@=?utf-8?q?b?=", b"a\xe9@b", b"a@b\xe9",
        b"l" * 65 + b"@b", b"a@" + b"d" * 64, b"a@" + b".".join([b"d" * 63] * 4), b"a@" + b"1.2." * 64 + b"c",
    ],
)  # fmt: skip
def test_what_is_no_mailbox(raw):
    with pytest.raises(AddressError):
        parse_mailbox(raw)


def test_limits_are_what_the_rfc_says():
    assert parse_mailbox(b"l" * 64 + b"@b").local == "l" * 64
    longest = b"a@" + b".".join([b"d" * 62] * 4)
    assert len(longest) == 253
    assert parse_mailbox(longest + b"d").text == longest.decode() + "d"
    with pytest.raises(AddressError):
        parse_mailbox(b"a" + longest + b"d")
    assert parse_path(b"<" + longest + b"d>", utf8=False)[0] is not None


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("grün@b.example", "b.example"),
        ("a@bücher.example", "xn--bcher-kva.example"),
        ("a@BÜCHER.example", "xn--bcher-kva.example"),
        ("用户@例子.example", "xn--fsqu00a.example"),
        ('"grün gelb"@b.example', "b.example"),
    ],
)
def test_utf8_mailboxes_only_where_asked_for(text, destination):
    mailbox = parse_mailbox(text.encode(), utf8=True)
    assert (mailbox.text, mailbox.destination, mailbox.utf8) == (text, destination, True)
    with pytest.raises(AddressError) as refused:
        parse_mailbox(text.encode())
    assert refused.value.needs_utf8


@pytest.mark.parametrize(
    "raw",
    [
        b"a\xff@b", b"a\xc0\xaf@b", b"\xed\xa0\x80@b", b"a\xe2\x82@b",  # no UTF-8, overlong, surrogate, cut
        *(text.encode() for text in (
            "a＠b.example", "a@b＠c", "a@b。example", "a@b．example", "a@b｡example", "a。b@c", "a\u2028b@c", "a\x85b@c",
            "a\u202eb@c", "a\u200bb@c", "a\xa0b@c", '"a\u2029"@b', "a@ｅxample.com", "a@exa\u00admple.com",
            "a@\u2100.com",
        )),
    ],
)  # fmt: skip
def test_what_is_refused_with_utf8_too(raw):
    with pytest.raises(AddressError) as refused:
        parse_mailbox(raw, utf8=True)
    assert not refused.value.needs_utf8


@pytest.mark.parametrize(
    ("raw", "text", "rest"),
    [
        (b"<>", None, b""),
        (b"<> SIZE=1", None, b"SIZE=1"),
        (b"<a@b> SIZE=1  BODY=7BIT ", "a@b", b"SIZE=1  BODY=7BIT"),
        (b"<@one.example,@two.example:u@c.example>", "u@c.example", b""),
        (b"<@[192.0.2.1]:u@c>", "u@c", b""),
        (b"<@[IPv6:::1],@b:u@c>", "u@c", b""),
        (b'<"a>b"@c> X', '"a>b"@c', b"X"),
        (b'<@b:"x y"@c>', '"x y"@c', b""),
        (b"<postmaster>", "postmaster", b""),
    ],
)
def test_good_paths(raw, text, rest):
    mailbox, parameters = parse_path(raw, utf8=False)
    assert (mailbox.text if mailbox else None, parameters) == (text, rest)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"a@b", b"<a@b", b"a@b>", b"<<a@b>>", b"< a@b>", b"<a@b >", b"<a@b>x", b"<a@b><c@d>", b"x <a@b>",
        b'"x" <a@b>', b"<a@b,c@d>", b"<@b:>", b"<@b>", b"<@b u@c>", b"<b:u@c>", b"<@:u@c>", b"<@b,c:u@d>",
        b"<@b,@c,:u@d>", b"<@b:@c:u@d>", b"<@" + b"b." * 200 + b"c:u@d>", b"<a@b>\tSIZE=1", b"<\r\n>", b"<\x00>",
        b"< >",
    ],
)  # fmt: skip
def test_what_is_no_path(raw):
    with pytest.raises(AddressError):
        parse_path(raw, utf8=False)


def test_ascii_form_of_a_mailbox():  # X17
    assert with_ascii_domain("a@B.example") == "a@B.example"
    assert with_ascii_domain('"a b"@m\u00fcnchen.example') == '"a b"@xn--mnchen-3ya.example'
    assert with_ascii_domain("\u00fc@m\u00fcnchen.example") is None
    assert with_ascii_domain("\u00fc@b.example") is None


def test_parameters_beyond_ascii():  # X15, S23
    assert parse_parameters("ORCPT=utf-8;\u00fc@b".encode(), utf8=True) == [("ORCPT", "utf-8;\u00fc@b")]
    with pytest.raises(AddressError):
        parse_parameters("X=\u00fc".encode())
    for raw in ("\u00dc=x", "X=\u00fc=", "X=\x85", "X=\u2003"):
        with pytest.raises(AddressError):
            parse_parameters(raw.encode(), utf8=True)
    for octets in (b"X=\xfc", b"X=\xc0\xaf", b"X=\xed\xa0\x80"):
        with pytest.raises(AddressError):
            parse_parameters(octets, utf8=True)


def test_parameters():
    assert parse_parameters(b"SIZE=12 body=8BITMIME X") == [("SIZE", "12"), ("BODY", "8BITMIME"), ("X", None)]
    assert parse_parameters(b"ENVID=QQ+3Dz mt-priority=3") == [("ENVID", "QQ+3Dz"), ("MT-PRIORITY", "3")]
    assert parse_parameters(b"") == []


@pytest.mark.parametrize("raw", [b"=", b"A=", b"-A=1", b"A==1", b"A=b=c", b"A=\x00", b"A=\r\n", b"A=\xe9", b"A\t=1"])
def test_what_is_no_parameter(raw):
    with pytest.raises(AddressError):
        parse_parameters(raw)


@pytest.mark.parametrize(
    ("domain", "destination"),
    [
        ("Example.COM", "example.com"), ("example.com.", "example.com"), ("bücher.example.", "xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"), ("[IPv6:2001:0DB8::0001]", "[IPv6:2001:db8::1]"),
    ],
)  # fmt: skip
def test_destination_of(domain, destination):
    assert destination_of(domain) == destination


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", "a b", "a@b", "-a", "192.0.2.1", "a/b", "[a]", "ü\u3002b", "a" * 64]
)
def test_what_is_no_destination(domain):
    with pytest.raises(AddressError):
        destination_of(domain)


# Octets that are likely to be significant, so that random input comes near to addresses.
_pieces = st.sampled_from(
    [
        b"a", b"B", b".", b"@",
        b'"', b"\\", b" ", b"<", b">", b"[", b"]", b":", b",", b"%", b"!", b"\r", b"\n", b"\x00",
        b"\xc3\xbc", b"\xff", b"1", b"-", b"[192.0.2.1]", b"b.example",
    ]
)  # fmt: skip
_near_addresses = st.lists(_pieces, max_size=14).map(b"".join)


@given(_near_addresses | st.binary(max_size=40), st.booleans())
def test_whatever_is_taken_is_safe_and_means_itself(raw, utf8):
    try:
        mailbox = parse_mailbox(raw, utf8=utf8)
    except AddressError as error:
        assert "\n" not in str(error)
        return
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", mailbox.text)
    assert mailbox.text.isascii() or (utf8 and mailbox.utf8)
    # Parsed again it is the same, with brackets too, and there is nothing behind it.
    assert parse_mailbox(mailbox.text.encode(), utf8=utf8) == mailbox
    assert parse_path(b"<" + mailbox.text.encode() + b">", utf8=utf8) == (mailbox, b"")
    if mailbox.domain:
        assert mailbox.text.endswith("@" + mailbox.domain)
        assert mailbox.destination == destination_of(mailbox.destination)
        assert mailbox.destination == destination_of(mailbox.domain)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_any_printable_local_part_can_be_quoted(local):
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"@b.example'
    mailbox = parse_mailbox(quoted.encode())
    assert mailbox.local == local
    needs_quotes = not re.fullmatch(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", local, re.ASCII)
    assert mailbox.text.startswith('"') == needs_quotes


@given(_near_addresses)
def test_paths_never_lose_octets(raw):
    try:
        mailbox, rest = parse_path(raw, utf8=True)
    except AddressError:
        return
    assert raw.startswith(b"<")
    assert raw.rstrip(b" ").endswith(rest)
    assert mailbox is not None or raw.startswith(b"<>")
