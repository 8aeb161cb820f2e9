"""Commands: their order, their syntax, their line ends, and what is known to nobody. RFC 5321 sections 3 and 4."""

import re

from mailtui.intake.session import ERROR_LIMIT
from tests.abuse.talk import (
    BODY,
    CLOSED,
    HOST,
    KEPT,
    MAIL,
    OURS,
    RCPT,
    Case,
    Taken,
    check,
    hold,
    table,
)
from tests.intake.conftest import STRANGER, over_every_wire

POSTMASTER = STRANGER.replace("[access]", '[mail]\npostmaster = "root@ours.example"\n[access]')


@over_every_wire
async def test_the_greeting_names_us_first(relay, wire):  # S01
    one = await relay()
    client = await one.client()
    assert re.fullmatch(rf"220 {re.escape(HOST)} ESMTP .*", client.greeting.text)


ORDER = (
    Case("S05", "helo-is-one-line-and-can-send", [("HELO c", "250"), (MAIL, "250"), (RCPT, "250"), ("DATA", "354"),
         (BODY, "250")], taken=[KEPT], hello=False),
    Case("S06", "ehlo-without-a-name-changes-nothing", [(MAIL, "250"), ("EHLO", "501"), ("EHLO   ", "501"),
         ("HELO", "501"), (RCPT, "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("S06", "ehlo-without-a-name-is-no-ehlo", [("EHLO", "501"), (MAIL, "503/5.5.1")], hello=False),
    Case("S07", "ehlo-amid-a-transaction-ends-it", [(MAIL, "250"), (RCPT, "250"), ("EHLO again.test", "250"),
         ("DATA", "503/5.5.1"), (RCPT, "503/5.5.1")]),
    Case("S07", "helo-amid-a-transaction-ends-it", [(MAIL, "250"), (RCPT, "250"), ("HELO again.test", "250"),
         ("DATA", "503/5.5.1")]),
    *(Case("S08", f"any-name-in-ehlo-will-do-{name}", [(f"EHLO {name}", "250"), (MAIL, "250"), (RCPT, "250"),
           ("DATA", "354"), (BODY, "250")], taken=[KEPT], hello=False)
      for name in ("[127.0.0.1]", "[IPv6:::1]", "[1.2.3.4]", "localhost", "no.such.host.invalid", "under_score",
                   "ours.example", HOST, "1.2.3.4")),
    Case("S08 T08", "a-name-in-ehlo-that-forges-structure-is-harmless", [("EHLO x (by evil) ; <a@b>", "250"),
         (MAIL, "250"), (RCPT, "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT], hello=False),
    Case("S08", "control-characters-in-ehlo-are-refused", [("EHLO a\tb", "501"), ("EHLO a\x1b[2Jb", "501"),
         ("EHLO \x7f", "501"), ("EHLO gr\u00fcn", "501"), ("EHLO " + "x" * 256, "501"), (MAIL, "503/5.5.1")],
         hello=False),
    Case("S09", "nothing-of-a-transaction-before-ehlo", [(MAIL, "503/5.5.1"), (RCPT, "503/5.5.1"),
         ("DATA", "503/5.5.1")], hello=False),
    Case("S10", "rcpt-before-mail", [(RCPT, "503/5.5.1"), (MAIL, "250")]),
    Case("S10", "data-before-mail", [("DATA", "503/5.5.1")]),
    Case("S10", "a-second-mail-leaves-the-first-one-in-force", [(MAIL, "250"), ("MAIL FROM:<evil@b.example>",
         "503/5.5.1"), (RCPT, "250"), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("S10", "a-refused-mail-opens-no-transaction", [("MAIL FROM:<a@@b.example>", "501/5.1.7"), (RCPT, "503/5.5.1"),
         ("DATA", "503/5.5.1")]),
    Case("S11", "data-without-recipient", [(MAIL, "250"), ("DATA", "554/5.5.1"), (RCPT, "250"), ("DATA", "354"),
         (BODY, "250")], taken=[KEPT]),
    Case("S11", "data-without-a-recipient-that-was-accepted", [(MAIL, "250"), ("RCPT TO:<v@other.example>",
         "554/5.7.1"),
         ("DATA", "554/5.5.1")]),
    Case("S11 X05", "a-message-pipelined-behind-refused-recipients-is-no-message", [(
         b"MAIL FROM:<a@b.example>\r\nRCPT TO:<v@other.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
         "250/2.1.0 554/5.7.1 554/5.5.1 521")], end=CLOSED),
    Case("S12", "rset-forgets-the-transaction", [(MAIL, "250"), (RCPT, "250"), ("RSET", "250/2.0.0"),
         ("DATA", "503/5.5.1"), (RCPT, "503/5.5.1")]),
    Case("S12", "rset-data-and-quit-take-no-argument", [(MAIL, "250"), (RCPT, "250"), ("RSET x", "501/5.5.4"),
         ("DATA x", "501/5.5.4"), ("QUIT x", "501/5.5.4"), ("DATA", "354"), (BODY, "250")], taken=[KEPT]),
    Case("S12", "noop-takes-any-argument-and-changes-nothing", [(MAIL, "250"), ("NOOP RSET", "250/2.0.0"),
         ("NOOP " + "x" * 500, "250"), (RCPT, "250")]),
    Case("S13", "nothing-behind-quit-is-run", [(b"QUIT\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\nDATA"
         b"\r\nx\r\n.\r\n", "221/2.0.0")], end=CLOSED),
    Case("S13", "quit-amid-a-transaction-queues-nothing", [(MAIL, "250"), (RCPT, "250"), ("QUIT", "221")], end=CLOSED),
    Case("S14", "unknown-commands-are-500-and-close-nothing", [("FROB", "500/5.5.1"), ("", "500"), (" ", "500"),
         ("\t", "500"), ("MAILFROM:<a@b.example>", "500"), ("XCLIENTX", "500"), ("MAIL\tFROM:<a@b.example>", "500")]),
    Case("S14 S19 X23", "known-commands-that-are-not-offered-are-502", [("EXPN staff", "502/5.5.1"), ("TURN", "502"),
         ("SEND FROM:<a@b.example>", "502"), ("SOML FROM:<a@b.example>", "502"), ("SAML FROM:<a@b.example>", "502"),
         ("ETRN ours.example", "502"), (RCPT, "503")]),
    Case("S15", "verbs-and-keywords-in-any-case-local-parts-as-they-came", [("eHlO c", "250"),
         ("mAiL fRoM:<A.b@B.Example> sIzE=1 bOdY=8bItMiMe", "250"), ("rCpT tO:<X@Ours.Example>", "250"),
         ("dAtA", "354"), (BODY, "250")], taken=[KEPT._replace(to="X@Ours.Example", sender="A.b@B.Example")],
         hello=False),
    Case("S17", "the-null-sender-is-always-taken", [("MAIL FROM:<>", "250/2.1.0"), (RCPT, "250"), ("DATA", "354"),
         (BODY, "250")], taken=[KEPT._replace(sender="")]),
    Case("S18", "postmaster-without-a-domain-in-any-case", [(MAIL, "250"), ("RCPT TO:<pOsTmAsTeR>", "250"),
         ("DATA", "354"), (BODY, "250")], taken=[KEPT._replace(to="root@ours.example")], toml=POSTMASTER),
    Case("S18", "the-empty-path-is-no-recipient", [(MAIL, "250"), ("RCPT TO:<>", "501/5.1.3"), ("DATA", "554")]),
    Case("S19", "vrfy-confirms-nobody", [("VRFY x@ours.example", "252"), ("VRFY nobody@ours.example", "252"),
         ("VRFY root", "252"), ("VRFY", "501"), ("VRFY gr\u00fcn@ours.example", "553/5.6.7"),
         ("VRFY \udcff", "501/5.5.2")]),
)  # fmt: skip


@table(*ORDER)
async def test_order(relay, case):
    await hold(relay, case)


LINES = (
    Case("M01 M08", "a-bare-lf-parts-no-commands", [(b"MAIL FROM:<a@b.example>\nRCPT TO:<x@ours.example>\nDATA\r\n",
         "500/5.5.2"), ("DATA", "503/5.5.1")]),
    Case("M01 M08", "a-bare-cr-parts-no-commands", [(b"NOOP\rMAIL FROM:<a@b.example>\r\n", "500/5.5.2"),
         (RCPT, "503/5.5.1")]),
    Case("M08", "lf-cr-parts-no-commands", [(b"NOOP\n\rMAIL FROM:<a@b.example>\r\n", "500/5.5.2"), (RCPT, "503")]),
    Case("M08", "cr-cr-lf-ends-one-refused-command", [(b"NOOP\r\r\nNOOP\r\n", "500/5.5.2 250")]),
    Case("M08 M04", "no-other-line-end-of-unicode-parts-commands", [
         ("NOOP\x0bMAIL FROM:<a@b.example>", "500"), ("NOOP\x0cMAIL FROM:<a@b.example>", "500"),
         ("NOOP x\x85MAIL FROM:<a@b.example>", "250"), ("NOOP x\u2028MAIL FROM:<a@b.example>", "250"),
         (RCPT, "503/5.5.1")]),
    Case("M08", "a-bare-lf-behind-quit-does-not-quit", [(b"QUIT\n\r\n", "500/5.5.2")]),
    Case("M10", "nul-in-a-command", [(b"MAIL FROM:<a@b.example>\0\r\n", "500/5.5.2"), (b"\0\r\n", "500"),
         (b"NOOP \0 x\r\n", "500"), (b"RCPT TO:<x\0@ours.example>\r\n", "500"), (RCPT, "503/5.5.1")]),
    Case("R01", "an-over-long-command-is-one-error-and-its-tail-none", [(b"NOOP " + b"x" * 100_000 + b"MAIL FROM:<a@b>"
         b"\r\n", "500/5.5.2"), (RCPT, "503/5.5.1")]),
    Case("R01 M08", "an-over-long-command-may-hold-any-line-end-but-its-own", [(b"NOOP " + b"x\nRSET\n\rQUIT\r" * 1000
         + b"\r\n", "500/5.5.2")]),
    Case("R01", "an-endless-command-is-closed", [(b"x" * (2 << 20), "500/5.5.2")], end=CLOSED),
    Case("R01", "an-over-long-mail-opens-no-transaction", [("MAIL FROM:<a@b.example> ENVID=" + "x" * 3000, "500/5.5.2"),
         (RCPT, "503/5.5.1")]),
    Case("M13", "http-get-is-sent-away",
         [(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\nEHLO c\r\nMAIL FROM:<a@b.example>\r\n",
         "521")], end=CLOSED, hello=False),
    Case("M13", "http-post-is-sent-away-with-the-mail-in-its-body", [(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"
         b"HELO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\nDATA\r\nx\r\n.\r\n", "521")], end=CLOSED,
         hello=False),
    Case("M13", "http-connect-is-sent-away", [("CONNECT relay:25 HTTP/1.1", "521")], end=CLOSED, hello=False),
    Case("M13", "the-lines-of-a-header-are-sent-away", [("Host: relay", "521")], end=CLOSED),
    Case("R02", "too-many-errors-end-the-session", [(b"FROB\r\n" * ERROR_LIMIT + b"NOOP\r\n",
         "500 " * ERROR_LIMIT + "421/4.7.0")], end=CLOSED),
    Case("R02 R06", "guessing-recipients-ends-the-session", [(MAIL, "250"),
         (b"".join(b"RCPT TO:<guess%d@other.example>\r\n" % n for n in range(ERROR_LIMIT)), "554 " * ERROR_LIMIT),
         (RCPT, "421/4.7.0")], end=CLOSED),
    Case("X05", "replies-to-a-group-come-in-its-order", [(
         b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bad>\r\nRCPT TO:<x@ours.example>\r\nRCPT TO:<v@other.example>\r\n"
         b"DATA\r\n",
         "250/2.1.0 501/5.1.3 250/2.1.5 554/5.7.1 354"), (BODY, "250")], taken=[KEPT]),
    Case("X05 S35", "whole-sessions-in-one-piece", [((b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\nDATA\r\n"
         b"x\r\n.\r\n") * 3 + b"RSET\r\nNOOP\r\n", "250 250 354 250 " * 3 + "250 250")],
         taken=[Taken(b"x\r\n")] * 3),
    Case("S02", "a-flood-of-commands-gets-a-reply-each",
         [(MAIL, "250"), (f"{RCPT}\r\n".encode() * 5000, "250/2.1.5 " * 5000)]),
)  # fmt: skip


@table(*LINES)
async def test_lines(relay, case):
    await hold(relay, case)


@over_every_wire
async def test_every_keyword_of_ehlo_is_kept(relay):  # S04, X01, X03, X07, X15
    one = await relay(OURS)
    client = await one.client()
    offered = check(await client.command("EHLO client.test"))
    assert offered.lines[0] == f"250-{HOST}"
    keywords = [line[4:].split()[0] for line in offered.lines[1:]]
    assert len(set(keywords)) == len(keywords)
    proof = {
        "PIPELINING": ("NOOP", 250),
        "SIZE": (f"{MAIL} SIZE=1000", 250),
        "8BITMIME": (f"{MAIL} BODY=8BITMIME", 250),
        "SMTPUTF8": ("MAIL FROM:<gr\u00fcn@b.example> SMTPUTF8", 250),
        "DSN": (f"{MAIL} RET=HDRS ENVID=x", 250),
        "ENHANCEDSTATUSCODES": ("RSET", 250),
        "STARTTLS": ("STARTTLS x", 501),
        "CHUNKING": ("BDAT x", 501),
    }
    for keyword in keywords:
        command, code = proof[keyword]
        await client.command("RSET")
        assert (await client.command(command)).code == code, keyword
        if keyword == "CHUNKING":  # the length that follows is not known
            client = await one.session()
    assert {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"} <= set(keywords)
    assert ("STARTTLS" in keywords) is False  # none of these listeners has it now: no TLS, or TLS already
