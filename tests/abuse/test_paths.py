"""Addresses that are no way round the rules, and parameters: RFC 5321 section 4.1.2 and 7.9, RFC 2505 section 2.1.

`ours.example` is taken from anybody, all else from nobody: the client is a stranger.
"""

import pytest

from tests.abuse.talk import BODY, HOST, KEPT, MAIL, OURS, RCPT, Case, check, hold, in_step, table
from tests.intake.conftest import STRANGER, over_every_wire

DENIED, SYNTAX, LITERAL = "554/5.7.1", "501/5.1.3", "[127.0.0.1]"


def refused(*recipients: str, code: str = DENIED, mail: str = MAIL) -> list[tuple[str | bytes, str]]:
    """A transaction in which none of these recipients is taken; a RSET at its end."""
    commands = [(path if path.startswith("RCPT") else f"RCPT TO:{path}", code) for path in recipients]
    return [(mail, "250"), *commands, ("DATA", "554/5.5.1"), ("RSET", "250")]


RELAYING = (
    Case("P01 P07 S38", "a-stranger-is-refused-at-rcpt", refused("<v@other.example>")),
    Case("P07", "from-nobody-to-elsewhere", refused("<v@other.example>", mail="MAIL FROM:<>")),
    Case("P07 C2", "a-sender-of-ours-permits-nothing", refused("<v@other.example>", mail="MAIL FROM:<x@ours.example>")),
    Case("P07", "to-oneself-elsewhere", refused("<v@other.example>", mail="MAIL FROM:<v@other.example>")),
    Case("P08", "a-sender-at-our-address-permits-nothing", refused("<v@other.example>",
         mail=f"MAIL FROM:<s@{LITERAL}>")),
    Case("P08", "a-sender-at-localhost-permits-nothing", refused("<v@other.example>", mail="MAIL FROM:<s@localhost>")),
    Case("P08", "our-postmaster-as-sender-permits-nothing", refused("<v@other.example>",
         mail="MAIL FROM:<postmaster@ours.example>")),
    Case("P08", "our-own-name-as-sender-permits-nothing", refused("<v@other.example>",
         mail=f"MAIL FROM:<root@{HOST}>")),
    Case("P08", "a-sender-without-a-domain-is-none", [("MAIL FROM:<spammer>", "501/5.1.7"), (RCPT, "503")]),
    *(Case("P03", f"a-name-in-ehlo-permits-nothing-{name}", [(f"EHLO {name}", "250"), *refused("<v@other.example>")],
           hello=False) for name in ("localhost", LITERAL, "ours.example", HOST)),
    Case("P02 P04", "the-ipv6-loopback-is-not-the-ipv4-one", refused("<v@other.example>"),
         toml=STRANGER.replace("networks = []", 'networks = ["::1/128"]')),
    Case("P04", "a-network-beside-ours-is-not-ours", refused("<v@other.example>"),
         toml=STRANGER.replace("networks = []", 'networks = ["127.0.0.2/31", "128.0.0.0/8", "::7f00:1/128"]')),
    Case("P06", "domains-are-whole-labels", refused("<x@evilours.example>", "<x@ours.example.evil.example>",
         "<x@ours.exampl>", "<x@ours-example>", "<x@oursxexample>", "<x@example>")),
    Case("P06", "a-sub-domain-is-another-domain", refused("<x@sub.ours.example>", "<x@www.ours.example>")),
    Case("P06", "our-domain-in-any-case", [(MAIL, "250"), ("RCPT TO:<x@OURS.eXAMPLE>", "250"), ("DATA", "354"),
         (BODY, "250")], taken=[KEPT._replace(to="x@OURS.eXAMPLE")]),
    Case("P06 P14", "a-trailing-dot-is-no-domain", refused("<x@ours.example.>", "<v@other.example.>", code=SYNTAX)),
    Case("P09", "percent-at-elsewhere", refused("<v%other.example@evil.example>", f"<v%other.example@{LITERAL}>",
         "<v%other.example@localhost>")),
    Case("P09 P17", "percent-at-ours-is-a-mailbox-of-that-name", [(MAIL, "250"),
         ("RCPT TO:<v%other.example@ours.example>",
         "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT._replace(to="v%other.example@ours.example")]),
    Case("P09", "percent-without-a-domain-is-no-address", refused("<v%other.example>", "<v%ours.example>",
         code=SYNTAX)),
    Case("P10", "quoted-addresses-without-a-domain-are-none", refused('<"v@other.example">', '<"v%other.example">',
         '<"x@ours.example">', code=SYNTAX)),
    Case("P10 P17", "a-quoted-address-at-ours-is-a-mailbox-of-that-name", [(MAIL, "250"),
         ('RCPT TO:<"v@other.example"@ours.example>', "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT._replace(to='"v@other.example"@ours.example')]),
    Case("P10", "a-quoted-address-of-ours-elsewhere", refused('<"x@ours.example"@other.example>',
         f'<"v@other.example"@{LITERAL}>', '<"x@ours.example>,<x"@other.example>')),
    Case("P11", "two-at-signs-are-no-address", refused("<v@other.example@ours.example>",
         "<v@ours.example@other.example>",
         f"<v@other.example@{LITERAL}>", "<@@ours.example>", "<v@@ours.example>", code=SYNTAX)),
    Case("P12 S20", "a-source-route-through-us-is-no-way", refused("<@ours.example:v@other.example>",
         f"<@{LITERAL}:v@other.example>", "<@ours.example,@ours.example:v@other.example>",
         "<@localhost:v@other.example>", f"<@{HOST}:v@other.example>")),
    Case("P12 P17 S20", "a-source-route-to-us-is-forgotten", [(MAIL, "250"),
         ("RCPT TO:<@evil.example,@other.example:x@ours.example>", "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT]),
    Case("S21", "a-source-route-of-the-sender-is-forgotten", [("MAIL FROM:<@one.example,@two.example:a@b.example>",
         "250"),
         (RCPT, "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("P12", "what-is-nearly-a-source-route-is-refused", refused("<@ours.example>", "<@:x@ours.example>",
         "<@ours.example:>", "<@a;b:x@ours.example>", "<ours.example:v@other.example>", "<@a,b:x@ours.example>",
         "<@a@b:x@ours.example>", "<x@ours.example,@a:v@other.example>", code=SYNTAX)),
    Case("P13", "bang-paths-elsewhere", refused("<other.example!v@evil.example>", f"<other.example!v@{LITERAL}>",
         "<ours.example!other.example!v@other.example>")),
    Case("P13", "bang-paths-without-a-domain-are-no-address", refused("<other.example!v>",
         "<ours.example!other.example!v>",
         code=SYNTAX)),
    Case("P13 P17", "a-bang-path-at-ours-is-a-mailbox-of-that-name", [(MAIL, "250"),
         ("RCPT TO:<other.example!v@ours.example>", "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT._replace(to="other.example!v@ours.example")]),
    Case("P14", "no-brackets", refused("x@ours.example", "v@other.example", "<x@ours.example", "x@ours.example>", "",
         code=SYNTAX)),
    Case("P14", "doubled-brackets", refused("<<x@ours.example>>", "<x@ours.example>>", "<<x@ours.example>",
         "<v@other.example><x@ours.example>", "<><x@ours.example>", code=SYNTAX)),
    Case("P14", "display-names-and-comments", refused("X <x@ours.example>", "<X x@ours.example>",
         '"X" <x@ours.example>',
         "<v@other.example(@ours.example)>", "<x(c)@ours.example>", "(c)<x@ours.example>", code=SYNTAX)),
    Case("P14", "two-addresses-in-one-rcpt", refused("<x@ours.example>,<v@other.example>",
         "<x@ours.example>;<v@o.example>",
         "<x@ours.example,v@other.example>", "<x@ours.example v@other.example>", code=SYNTAX)),
    Case("P14 S16", "a-second-address-behind-a-blank-is-no-parameter", [(MAIL, "250"),
         ("RCPT TO:<x@ours.example> <v@other.example>", "501/5.5.4"), ("RCPT TO:<x@ours.example> , <v@o.example>",
         "501/5.5.4"), ("DATA", "554")]),
    Case("P14", "control-characters-in-addresses", refused("<v@other.example\t@ours.example>", "<v\x01@ours.example>",
         "<v\x7f@ours.example>", "<v@ours\x1f.example>", '<"v\x01"@ours.example>', code=SYNTAX)),
    Case("P14", "look-alikes-of-at-and-dot-without-smtputf8", refused("<v\uff20ours.example>", "<v@ours\u3002example>",
         "<v@ours\uff0eexample>", code="553/5.6.7")),
    Case("P14", "look-alikes-of-at-and-dot-with-smtputf8", refused("<v\uff20ours.example>", "<v@ours\u3002example>",
         "<v@other.example\uff20ours.example>", "<v\u202e@ours.example>", "<v@ours\uff0eexample>",
         "<v\x85@ours.example>",
         "<v\u2028@ours.example>", code=SYNTAX, mail="MAIL FROM:<a@b.example> SMTPUTF8")),
    Case("P06 X17", "a-look-alike-of-our-domain-is-another-domain", refused("<x@\u03bfurs.example>",
         "<x@our\u0455.example>",
         mail="MAIL FROM:<a@b.example> SMTPUTF8")),
    Case("P15", "one-good-recipient-and-one-bad", [(MAIL, "250"), ("RCPT TO:<v@other.example>", DENIED), (RCPT, "250"),
         ("RCPT TO:<w@other.example>", DENIED), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("P18 D07", "our-own-names-are-no-domains-of-ours", refused(f"<x@{HOST}>", "<x@localhost>", "<root@example>",
         "<postmaster@other.example>")),
    Case("S24 P18", "no-literal-for-strangers", refused("<v@[192.0.2.1]>", f"<v@{LITERAL}>", "<v@[IPv6:::1]>",
         "<postmaster@[127.0.0.1]>", "<v@[IPv6:::ffff:127.0.0.1]>")),
    Case("S24", "what-is-no-literal-is-refused", refused("<v@[]>", "<v@[127.0.0.1>", "<v@127.0.0.1>", "<v@[127.1]>",
         "<v@[0x7f000001]>", "<v@[127.0.0.01]>", "<v@[::1]>", "<v@[IPv6:fe80::1%lo]>", "<v@[ours.example]>",
         "<v@0177.0.0.1>",
         "<v@2130706433>", "<v@[tag:x]>", code=SYNTAX)),
    Case("S24", "literals-for-ours-when-they-are-off", refused("<v@[192.0.2.1]>"),
         toml=OURS + "[access]\naddress_literals = false\n"),
)  # fmt: skip


@table(*RELAYING)
async def test_relaying(relay, case):
    await hold(relay, case)


LONG_DOMAIN = ".".join(["d" * 61] * 4)  # 247 octets
GRAMMAR = (
    Case("S22", "quotes-that-are-not-needed-go", [(MAIL, "250"), ('RCPT TO:<"x"@ours.example>', "250"), (RCPT, "250"),
         ('RCPT TO:<"\\x"@ours.example>', "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("S22", "quotes-that-are-needed-stay", [(MAIL, "250"), ('RCPT TO:<"john doe"@ours.example>', "250"),
         ('RCPT TO:<"a>b"@ours.example>', "250"), ('RCPT TO:<"a\\"b\\\\"@ours.example>', "250"),
         ('RCPT TO:<""@ours.example>', "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT._replace(to='"john doe"@ours.example "a>b"@ours.example "a\\"b\\\\"@ours.example '
         '""@ours.example')]),
    Case("S22 P14", "quotes-that-do-not-match", refused('<"x@ours.example>', '<x"@ours.example>',
         '<"x\\"@ours.example>',
         '<"x"y@ours.example>', '<y"x"@ours.example>', '<"x" @ours.example>', '<"x".y@ours.example>', code=SYNTAX)),
    Case("S22", "dots-that-do-not-part-atoms", refused("<.x@ours.example>", "<x.@ours.example>", "<x..y@ours.example>",
         "<x@ours..example>", "<x@.ours.example>", "<@ours.example>", "<x@>", "<x@-ours.example>", "<x@ours_.example>",
         code=SYNTAX)),
    Case("S23", "octets-above-127-without-smtputf8", [("MAIL FROM:<gr\u00fcn@b.example>", "553/5.6.7"), (MAIL, "250"),
         ("RCPT TO:<gr\u00fcn@ours.example>", "553/5.6.7"), ("RCPT TO:<x@\u00fcrs.example>", "553/5.6.7"),
         ("DATA", "554")]),
    Case("S23", "octets-that-are-no-utf8", [("MAIL FROM:<gr\udcfcn@b.example> SMTPUTF8", "501/5.1.7"),
         ("MAIL FROM:<gr\udcc0\udcafn@b.example> SMTPUTF8", "501/5.1.7"),
         ("MAIL FROM:<gr\udced\udca0\udc80n@b.example> SMTPUTF8", "501/5.1.7"), ("MAIL FROM:<a@b.example> SMTPUTF8",
         "250"),
         ("RCPT TO:<gr\udcfcn@ours.example>", "501/5.1.3"), ("RCPT TO:<x@ours.example> ORCPT=utf-8;\udcff",
         "501/5.5.4"),
         ("DATA", "554")]),
    Case("S23 X15", "utf8-for-a-client-that-asks", [("MAIL FROM:<gr\u00fcn@b.example> SMTPUTF8", "250"),
         ("RCPT TO:<k\u00f6ln@ours.example>", "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT._replace(to="k\u00f6ln@ours.example", sender="gr\u00fcn@b.example")]),
    Case("S25", "local-parts-of-64-octets", [(MAIL, "250"), (f"RCPT TO:<{'l' * 65}@ours.example>", SYNTAX),
         (f"RCPT TO:<{'l' * 64}@ours.example>", "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT._replace(to=f"{'l' * 64}@ours.example")]),
    Case("S25", "domains-of-63-octets-a-label-and-255-in-all", refused(f"<x@{'d' * 64}.example>", f"<x@{'d.' * 127}dd>",
         f"<x@{LONG_DOMAIN}.{'d' * 8}>", code=SYNTAX) + refused(f"<x@{'d' * 63}.example>")),
    Case("S25", "paths-of-256-octets", [(f"MAIL FROM:<{'l' * 6}@{LONG_DOMAIN}>", "250"), ("RSET", "250"),
         (f"MAIL FROM:<{'l' * 7}@{LONG_DOMAIN}>", "501/5.1.7"), (f"MAIL FROM:<@{LONG_DOMAIN}:a@b.example>",
         "501/5.1.7"),
         (RCPT, "503")]),
    Case("S25", "commands-of-512-octets", [("NOOP " + "x" * 505, "250"),
         (f"{MAIL} ENVID={'x' * 100} RET=FULL SIZE=1 BODY=8BITMIME SMTPUTF8", "250")]),
    Case("S26", "the-longest-parameters-of-dsn", [(f"{MAIL} ENVID={'x' * 100}", "250"),
         (f"{RCPT} NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{'o' * 493}", "250"), ("DATA", "354"), (BODY, "250")],
         taken=[KEPT]),
    Case("S26 S16", "parameters-of-dsn-that-are-too-long", [(f"{MAIL} ENVID={'x' * 101}", "501/5.5.4"), (MAIL, "250"),
         (f"{RCPT} ORCPT=rfc822;{'o' * 494}", "501/5.5.4"), ("DATA", "554")]),
    Case("S16", "unknown-parameters-are-555-and-bad-values-501", [(f"{MAIL} FROB", "555/5.5.4"), (f"{MAIL} FROB=1",
         "555"),
         (f"{MAIL} =1", "501/5.5.4"), (f"{MAIL} SIZE==1", "501"), (f"{MAIL} BODY", "501"), (f"{MAIL} RET=ALL", "501"),
         (MAIL, "250"), (f"{RCPT} FROB=1", "555/5.5.4"), (f"{RCPT} NOTIFY=SOON", "501/5.5.4"), (f"{RCPT} NOTIFY=",
         "501"),
         (f"{RCPT} SIZE=1", "555"), ("DATA", "554")]),
    Case("S16", "a-parameter-twice-is-an-error", [(f"{MAIL} SIZE=1 size=2", "501/5.5.4"), (f"{MAIL} RET=FULL RET=HDRS",
         "501"), (MAIL, "250"), (f"{RCPT} NOTIFY=NEVER NOTIFY=DELAY", "501/5.5.4"), ("DATA", "554")]),
    Case("X01", "size-over-the-limit-is-said-at-mail", [(f"{MAIL} SIZE=52428801", "552/5.3.4"),
         (f"{MAIL} SIZE=99999999999999999999", "552/5.3.4"), (f"{MAIL} SIZE=18446744073709551616", "552/5.3.4"),
         (RCPT, "503"), (f"{MAIL} SIZE=52428800", "250")]),
    Case("X01", "size-that-is-no-number", [(f"{MAIL} SIZE={value}", "501/5.5.4") for value in ("-1", "+1", "0x10",
         "1e3",
         "1.0", "", "1" * 21, "1K", "\u0661")] + [(RCPT, "503")]),
    Case("X04 X12", "body-that-is-not-offered", [(f"{MAIL} BODY=BINARYMIME", "501/5.5.4"), (f"{MAIL} BODY=9BIT", "501"),
         (f"{MAIL} BODY", "501"), (RCPT, "503")]),
    Case("X18", "orcpt-in-utf8-for-a-client-that-asks", [(f"{MAIL} SMTPUTF8", "250"),
         (f"{RCPT} ORCPT=utf-8;k\u00f6ln@old.example", "250"), ("DATA", "354"), (BODY, "250"), (MAIL, "250"),
         (f"{RCPT} ORCPT=utf-8;k\u00f6ln@old.example", "501/5.5.4"), ("DATA", "554")], taken=[KEPT]),
    Case("X15", "smtputf8-has-no-value-and-is-for-mail-only", [(f"{MAIL} SMTPUTF8=1", "501/5.5.4"), (MAIL, "250"),
         (f"{RCPT} SMTPUTF8", "555")]),
    Case("X19", "requiretls-is-not-taken-where-it-is-not-offered", [(f"{MAIL} REQUIRETLS", "555/5.5.4"), (RCPT,
         "503")]),
    Case("M12", "no-line-end-hides-in-a-parameter", [(b"MAIL FROM:<a@b.example> ENVID=x\rRCPT\r\n", "500/5.5.2"),
         (b"MAIL FROM:<a@b.example> ENVID=x\nRCPT\r\n", "500/5.5.2"), (f"{MAIL} ENVID=x+0D+0ARCPT", "501/5.5.4"),
         (f"{MAIL} ENVID=x+00", "501"), (f"{MAIL} ENVID=x+7F", "501"), (f"{MAIL} ENVID=x+0d", "501"),
         (f"{MAIL} ENVID=x+", "501"), (MAIL, "250"), (f"{RCPT} ORCPT=rfc822;x+0D+0AQUIT", "501/5.5.4"),
         (f"{RCPT} ORCPT=rfc822;x@y+00", "501"), (f"{RCPT} ORCPT=+0D;x", "501"), (f"{RCPT} ORCPT=utf-8;x\\x{{0D}}",
         "501"),
         ("DATA", "554")]),
    Case("M12 P14", "no-line-end-hides-in-an-address", [(MAIL, "250"), (b"RCPT TO:<x\r@ours.example>\r\n", "500/5.5.2"),
         (b'RCPT TO:<"x\nDATA"@ours.example>\r\n', "500/5.5.2"), (b'RCPT TO:<"x\\\r"@ours.example>\r\n', "500/5.5.2"),
         ("DATA", "554")]),
    Case("P14 S16", "blanks-before-the-path-and-at-the-end-are-harmless", [("MAIL FROM:  <a@b.example>  ", "250"),
         ("RCPT TO: <x@ours.example> ", "250"), ("DATA ", "354"), (BODY, "250")], taken=[KEPT]),
    Case("P14", "what-stands-between-verb-and-path", [("MAIL <a@b.example>", "501"), ("MAIL FROM <a@b.example>", "501"),
         ("MAIL TO:<a@b.example>", "501"), ("MAIL FROM:", "501"), ("MAIL", "501"), (MAIL, "250"), ("RCPT", "501"),
         ("RCPT FROM:<x@ours.example>", "501"), ("RCPT TO <x@ours.example>", "501"), ("DATA", "554")]),
)  # fmt: skip


@table(*GRAMMAR)
async def test_grammar(relay, case):
    await hold(relay, case)


@over_every_wire
@pytest.mark.parametrize("recipient", ["Gr\u00fcn@other.example", "v@other.example"])
async def test_replies_are_ascii_for_a_client_that_did_not_ask_for_more(relay, recipient):  # X17
    one = await relay(STRANGER)
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    answer = check(await client.command(f"RCPT TO:<{recipient}>"))
    assert answer.code in (553, 554) and answer.text.isascii()
    await in_step(one, client)


@over_every_wire
async def test_every_form_that_an_open_relay_takes(relay):  # P16
    # The forms of nmap's smtp-open-relay; tests/peers runs the script itself.
    one = await relay(STRANGER)
    us, name = "127.0.0.1", HOST
    senders = ["", "antispam@insecure.org", "antispam", f"antispam@[{us}]", f"antispam@{name}"]
    recipients = [
        "relaytest@insecure.org", '"relaytest@insecure.org"', '"relaytest%insecure.org"',
         f"relaytest@insecure.org@{name}",
        f"relaytest%insecure.org@{name}", f"relaytest@insecure.org@[{us}]", f'"relaytest@insecure.org"@[{us}]',
        f"relaytest%insecure.org@[{us}]", f"@[{us}]:relaytest@insecure.org", f"@{name}:relaytest@insecure.org",
        "insecure.org!relaytest", f"insecure.org!relaytest@[{us}]", f"insecure.org!relaytest@{name}",
    ]  # fmt: skip
    for sender in senders:
        client = await one.session(f"EHLO {name}")
        begun = check(await client.command(f"MAIL FROM:<{sender}>")).code == 250
        assert begun == (sender != "antispam")
        for recipient in recipients:
            assert check(await client.command(f"RCPT TO:<{recipient}>")).code in (501, 503, 554), recipient
        assert check(await client.command("DATA")).code == (554 if begun else 503)
        await client.close()
    assert not one.queue.messages
