"""Received lines as every mail system writes them (standards T13-T17)."""

import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.trace.received import LIMIT, parse_received

WHEN = "Mon, 15 Jan 2024 10:35:00 -0500"
MOMENT = datetime(2024, 1, 15, 15, 35, tzinfo=UTC).timestamp()

# (who wrote it, the line, what it says). What is not named must be "" (or False); every line has the date WHEN.
LINES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "mailtui",
        "from client.example (mail.client.example [192.0.2.1])\r\n\tby relay.example with ESMTP id 01HZ3K5V9Q0ZC\r\n"
        f"\tfor <bob@example.net>; {WHEN}",
        {"from_": "client.example", "reverse": "mail.client.example", "by": "relay.example", "protocol": "ESMTP"}
        | {"ip": "192.0.2.1", "id": "01HZ3K5V9Q0ZC", "for_": "bob@example.net"},
    ),
    (
        "mailtui, no reverse name, IPv6",
        f"from [IPv6:2001:db8::5] ([IPv6:2001:db8::1]) by relay.example with ESMTPS id 01HZ; {WHEN}",
        {"from_": "2001:db8::5", "by": "relay.example", "protocol": "ESMTPS", "ip": "2001:db8::1", "id": "01HZ"}
        | {"tls": True},
    ),
    (
        "Postfix",
        f"from a.example (unknown [192.0.2.7])\n\tby mx.example.org (Postfix) with ESMTP id 4F2X1y3zBmz9tW\n"
        f"\tfor <u@example.org>; {WHEN} (EST)",
        {"from_": "a.example", "reverse": "unknown", "by": "mx.example.org", "protocol": "ESMTP", "ip": "192.0.2.7"}
        | {"id": "4F2X1y3zBmz9tW", "for_": "u@example.org"},
    ),
    (
        "Postfix, TLS reported, plain protocol word",
        "from a.example (a.example [IPv6:2001:db8:0:0::25])\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 "
        "(256/256 bits)\n\t key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256)\n"
        f"\t(No client certificate requested)\n\tby mx.example.org (Postfix) with ESMTP id 4F2X; {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example.org", "protocol": "ESMTP", "id": "4F2X"}
        | {"ip": "2001:db8::25", "tls": True},
    ),
    (
        "Postfix submission",
        "from [10.0.0.3] (dsl.isp.example [198.51.100.9]) (Authenticated sender: joe@example.org)\n"
        f"\tby mail.example.org (Postfix) with ESMTPSA id 77AA for <x@y.example>; {WHEN}",
        {"from_": "10.0.0.3", "reverse": "dsl.isp.example", "by": "mail.example.org", "protocol": "ESMTPSA"}
        | {"ip": "198.51.100.9", "id": "77AA", "for_": "x@y.example", "tls": True},
    ),
    (
        "Postfix pickup",
        f"by mx.example.org (Postfix, from userid 1000)\n\tid 2F14C3A; {WHEN}",
        {"by": "mx.example.org", "id": "2F14C3A"},
    ),
    (
        "Postfix UTF8",
        f"from a.example (a.example [192.0.2.1]) by mx.example with UTF8SMTPSA id Q1 for <jörg@exämple.org>; {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "UTF8SMTPSA", "id": "Q1"}
        | {"ip": "192.0.2.1", "for_": "jörg@exämple.org", "tls": True},
    ),
    (
        "Exim",
        f"from mail.a.example ([192.0.2.1]:52344 helo=a.example)\n\tby mx.example with esmtps  (TLS1.3) tls "
        "TLS_AES_256_GCM_SHA384\n\t(Exim 4.96)\n\t(envelope-from <a@[203.0.113.5]>)\n\tid 1rPQxY-0001Ab-2C\n"
        f"\tfor bob@example.net;\n\t{WHEN}",
        {"from_": "a.example", "reverse": "mail.a.example", "by": "mx.example", "protocol": "esmtps", "tls": True}
        | {"ip": "192.0.2.1", "id": "1rPQxY-0001Ab-2C", "for_": "bob@example.net"},
    ),
    (
        "Exim, no reverse name",
        f"from [192.0.2.1] (port=4321 helo=a.example) by mx.example with esmtp (Exim 4.94) id 1abc; {WHEN}",
        {"from_": "a.example", "by": "mx.example", "protocol": "esmtp", "ip": "192.0.2.1", "id": "1abc"},
    ),
    (
        "Exim, a literal at HELO",
        f"from [192.0.2.1] (helo=[10.9.9.9]) by mx.example with esmtp (Exim 4.94) id 1abc; {WHEN}",
        {"from_": "10.9.9.9", "by": "mx.example", "protocol": "esmtp", "ip": "192.0.2.1", "id": "1abc"},
    ),
    (
        "Exim, HELO is the reverse name",
        f"from a.example ([2001:db8::1]) by mx.example with utf8esmtpsa (Exim 4.94) id 1abc; {WHEN}",
        {"from_": "a.example", "by": "mx.example", "protocol": "utf8esmtpsa", "ip": "2001:db8::1", "id": "1abc"}
        | {"tls": True},
    ),
    (
        "Exim, ident",
        f"from a.example ([192.0.2.1] helo=[203.0.113.9] ident=[198.51.100.4]) by mx.example with smtp id 1; {WHEN}",
        {"from_": "203.0.113.9", "reverse": "a.example", "by": "mx.example", "protocol": "smtp", "ip": "192.0.2.1"}
        | {"id": "1"},
    ),
    (
        "Exim, local",
        f"from root by mx.example with local (Exim 4.94) (envelope-from <root@mx.example>) id 1abc; {WHEN}",
        {"from_": "root", "by": "mx.example", "protocol": "local", "id": "1abc"},
    ),
    (
        "Sendmail",
        "from a.example (host-1.isp.example [192.0.2.1] (may be forged))\n\t(authenticated bits=0)\n\tby mx.example "
        "(8.15.2/8.15.2) with ESMTPSA id 40FFZ0ab012345\n\t(version=TLSv1.2 cipher=ECDHE-RSA-AES256-GCM-SHA384 "
        f"bits=256 verify=NO)\n\tfor <bob@example.net>; {WHEN}",
        {"from_": "a.example", "reverse": "host-1.isp.example", "by": "mx.example", "protocol": "ESMTPSA", "tls": True}
        | {"ip": "192.0.2.1", "id": "40FFZ0ab012345", "for_": "bob@example.net"},
    ),
    (
        "Sendmail, ident",
        f"from a.example (joe@a.example [192.0.2.1]) by mx.example (8.9.3/8.9.3) with SMTP id KAA1; {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1"}
        | {"id": "KAA1"},
    ),
    (
        "Sendmail, local",
        f"(from root@localhost)\n\tby mx.example (8.14.4/8.14.4/Submit) id u0FFZ0xy; {WHEN}",
        {"by": "mx.example", "id": "u0FFZ0xy"},
    ),
    (
        "qmail",
        f"from unknown (HELO a.example) (192.0.2.1)\n  by mx.example with SMTP; {WHEN}",
        {"from_": "a.example", "reverse": "unknown", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1"},
    ),
    (
        "qmail, a literal at HELO, ident",
        f"from host.example (HELO [203.0.113.9]) (joe@192.0.2.1) by 0 with SMTP; {WHEN}",
        {"from_": "203.0.113.9", "reverse": "host.example", "by": "0", "protocol": "SMTP", "ip": "192.0.2.1"},
    ),
    (
        "qmail, TLS patch",
        f"from unknown (HELO a.example) (192.0.2.1)\n by mx.example with ECDHE-RSA-AES256-GCM-SHA384\n encrypted SMTP; "
        f"{WHEN}",
        {"from_": "a.example", "reverse": "unknown", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1"}
        | {"tls": True},
    ),
    (
        "qmail, the other TLS patch",
        f"from unknown (HELO a.example) (192.0.2.1) by mx.example with (TLSv1 AES256-SHA encrypted) SMTP; {WHEN}",
        {"from_": "a.example", "reverse": "unknown", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1"}
        | {"tls": True},
    ),
    ("qmail, from the network", f"(qmail 26417 invoked from network); {WHEN}", {}),
    ("qmail, by a user", f"(qmail 1203 invoked by uid 89); {WHEN}", {}),
    (
        "qpsmtpd",
        f"from a.example (HELO a.example) (192.0.2.1)\n    by mx.example (qpsmtpd/0.84) with ESMTP; {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "ESMTP", "ip": "192.0.2.1"},
    ),
    (
        "Exchange Online",
        "from AM6PR01MB4567.eurprd01.prod.example.com\n (2001:db8:20b:1::23) by VI1PR01MB1234.eurprd01.prod.example.com"
        "\n (2001:db8:803:78::15) with Microsoft SMTP Server (version=TLS1_2,\n "
        f"cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id 15.20.7181.22; {WHEN}",
        {"from_": "AM6PR01MB4567.eurprd01.prod.example.com", "by": "VI1PR01MB1234.eurprd01.prod.example.com"}
        | {"protocol": "Microsoft SMTP Server", "ip": "2001:db8:20b:1::23", "id": "15.20.7181.22", "tls": True},
    ),
    (
        "Exchange, mapi",
        "from EX1.corp.example ([fe80::d9b:5f4a:1]) by EX1.corp.example\n ([fe80::d9b:5f4a:1%12]) with mapi id "
        f"15.02.1118.040; {WHEN}",
        {"from_": "EX1.corp.example", "by": "EX1.corp.example", "protocol": "mapi", "ip": "fe80::d9b:5f4a:1"}
        | {"id": "15.02.1118.040"},
    ),
    (
        "Exchange, HTTPS",
        f"from A.example.com (10.1.2.3)\n by B.example.com with HTTPS; {WHEN}",
        {"from_": "A.example.com", "by": "B.example.com", "protocol": "HTTPS", "ip": "10.1.2.3", "tls": True},
    ),
    (
        "Exchange 2010",
        f"from a.example (192.0.2.1) by ex.example (10.0.0.2) with Microsoft SMTP Server (TLS) id 14.3.498.0; {WHEN}",
        {"from_": "a.example", "by": "ex.example", "protocol": "Microsoft SMTP Server", "ip": "192.0.2.1"}
        | {"id": "14.3.498.0", "tls": True},
    ),
    (
        "Exchange 2016, without TLS",
        f"from a.example (192.0.2.1) by ex.example (10.0.0.2) with Microsoft SMTP\n Server id 15.1.2242.4 via Frontend "
        f"Transport; {WHEN}",
        {"from_": "a.example", "by": "ex.example", "protocol": "Microsoft SMTP Server", "ip": "192.0.2.1"}
        | {"id": "15.1.2242.4"},
    ),
    (
        "IIS",
        f"from a.example ([192.0.2.1]) by web1 with Microsoft SMTPSVC(6.0.3790.4675);\n\t {WHEN}",
        {"from_": "a.example", "by": "web1", "protocol": "Microsoft SMTPSVC", "ip": "192.0.2.1"},
    ),
    (
        "IIS pickup",
        f"from mail pickup service by web1 with Microsoft SMTPSVC; {WHEN}",
        {"from_": "mail pickup service", "by": "web1", "protocol": "Microsoft SMTPSVC"},
    ),
    (
        "Gmail, inside",
        f"by 2002:a05:6214:e1:b0:67a:f3e:42b with SMTP id n1csp1234567qvd;\n        {WHEN}",
        {"by": "2002:a05:6214:e1:b0:67a:f3e:42b", "protocol": "SMTP", "id": "n1csp1234567qvd"},
    ),
    (
        "Gmail, MX",
        "from mail-sor-f41.google.com (mail-sor-f41.google.com. [209.85.220.41])\n        by mx.google.com with SMTPS "
        f"id x1-2002\n        for <u@gmail.com>\n        (Google Transport Security);\n        {WHEN} (EST)",
        {"from_": "mail-sor-f41.google.com", "reverse": "mail-sor-f41.google.com", "by": "mx.google.com"}
        | {"protocol": "SMTPS", "ip": "209.85.220.41", "id": "x1-2002", "for_": "u@gmail.com", "tls": True},
    ),
    (
        "Gmail, TLS in a comment",
        "from a.example (a.example. [192.0.2.1]) by mx.google.com with ESMTPS id h1si1 for <u@gmail.com> "
        f"(version=TLS1_3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256); {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.google.com", "protocol": "ESMTPS", "tls": True}
        | {"ip": "192.0.2.1", "id": "h1si1", "for_": "u@gmail.com"},
    ),
    (
        "Gmail API",
        f"from 561072012345 named unknown by gmailapi.google.com with HTTPREST; {WHEN}",
        {"from_": "561072012345 named unknown", "by": "gmailapi.google.com", "protocol": "HTTPREST"},
    ),
    (
        "Yahoo",
        f"from [192.0.2.1] by web1.mail.yahoo.example via HTTP; {WHEN}",
        {"from_": "192.0.2.1", "by": "web1.mail.yahoo.example", "protocol": "HTTP", "ip": "192.0.2.1"},
    ),
    (
        "Yahoo Hermes",
        f"by hermes--prod-1 (Yahoo Inc. Hermes SMTP Server) with ESMTPA ID 1f2e3d;\n          {WHEN}",
        {"by": "hermes--prod-1", "protocol": "ESMTPA", "id": "1f2e3d"},
    ),
    (
        "SquirrelMail",
        f"from 192.0.2.1\n        (SquirrelMail authenticated user joe)\n        by mail.example with HTTP;\n {WHEN}",
        {"from_": "192.0.2.1", "by": "mail.example", "protocol": "HTTP", "ip": "192.0.2.1"},
    ),
    (
        "fetchmail",
        f"from imap.example [192.0.2.1]\n\tby desk with IMAP (fetchmail-6.4.1)\n\tfor <joe@localhost> (single-drop); "
        f"{WHEN}",
        {"from_": "imap.example", "by": "desk", "protocol": "IMAP", "ip": "192.0.2.1", "for_": "joe@localhost"},
    ),
    (
        "fetchmail, POP3",
        f"from pop.example ([2001:db8::7]) by desk with POP3 (fetchmail-6.3.26) for <joe@desk>; {WHEN}",
        {"from_": "pop.example", "by": "desk", "protocol": "POP3", "ip": "2001:db8::7", "for_": "joe@desk"},
    ),
    (
        "amavis",
        "from mx.example ([127.0.0.1])\n\tby localhost (mx.example [127.0.0.1]) (amavisd-new, port 10024)\n\twith "
        f"ESMTP id aBcD-eF1 for <u@example.org>;\n\t{WHEN}",
        {"from_": "mx.example", "by": "localhost", "protocol": "ESMTP", "ip": "127.0.0.1", "id": "aBcD-eF1"}
        | {"for_": "u@example.org"},
    ),
    (
        "amavis, LMTP",
        f"from mx.example ([10.0.0.1]) by localhost (f.example [127.0.0.1]) (amavis, port 10026) with LMTPS "
        f"id x1; {WHEN}",
        {"from_": "mx.example", "by": "localhost", "protocol": "LMTPS", "ip": "10.0.0.1", "id": "x1", "tls": True},
    ),
    (
        "Dovecot LMTP",
        f"from mx.example\n\tby store.example with LMTP\n\tid gP4bJ1RWpWWrDgAA\n\t(envelope-from <a@b.example>)\n\tfor "
        f"<u@example.org>; {WHEN}",
        {"from_": "mx.example", "by": "store.example", "protocol": "LMTP", "id": "gP4bJ1RWpWWrDgAA"}
        | {"for_": "u@example.org"},
    ),
    (
        "Cyrus LMTP",
        f"from mx.example ([unix socket])\n\t by store (Cyrus v2.3.7) with LMTPA;\n\t {WHEN}",
        {"from_": "mx.example", "by": "store", "protocol": "LMTPA"},
    ),
    (
        "OpenSMTPD",
        f"from a.example (mail.a.example [192.0.2.1])\n\tby mx.example (OpenSMTPD) with ESMTPS id 2d8d7ac8 "
        f"(TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)\n\tfor <u@example.org>;\n\t{WHEN} (CET)",
        {"from_": "a.example", "reverse": "mail.a.example", "by": "mx.example", "protocol": "ESMTPS", "tls": True}
        | {"ip": "192.0.2.1", "id": "2d8d7ac8", "for_": "u@example.org"},
    ),
    (
        "OpenSMTPD, TLS only in the comment",
        f"from a.example (a.example [192.0.2.1]) by mx.example (OpenSMTPD) with ESMTP id 1 (TLSv1.2:X:256:NO); {WHEN}",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "ESMTP", "tls": True}
        | {"ip": "192.0.2.1", "id": "1"},
    ),
    (
        "OpenSMTPD, local",
        f"from localhost (mx.example [local])\n\tby mx.example (OpenSMTPD) with ESMTPA id 7c0f\n\tfor <u@b.example>; "
        f"{WHEN}",
        {"from_": "localhost", "by": "mx.example", "protocol": "ESMTPA", "id": "7c0f", "for_": "u@b.example"},
    ),
    (
        "Courier",
        "from a.example (a.example [::ffff:192.0.2.1])\n  (TLS: TLSv1.2,256bits,ECDHE-RSA-AES256-GCM-SHA384)\n  by "
        f"mx.example with ESMTP; {WHEN}\n  id 000D3A8D.427FD296.00006AE5",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "ESMTP", "tls": True}
        | {"ip": "192.0.2.1", "id": "000D3A8D.427FD296.00006AE5"},
    ),
    (
        "CommuniGate",
        f"from [192.0.2.1] (account joe HELO laptop.example)\n  by mail.example (CommuniGate Pro SMTP 6.3)\n  with "
        f"ESMTPSA id 1234567 for u@example.org; {WHEN}",
        {"from_": "laptop.example", "by": "mail.example", "protocol": "ESMTPSA", "ip": "192.0.2.1", "tls": True}
        | {"id": "1234567", "for_": "u@example.org"},
    ),
    (
        "Domino",
        f"from a.example ([192.0.2.1])\n          by d.example (Lotus Domino Release 8.5.3FP6)\n          with ESMTP "
        f"id 2024011510345912-123 ;\n          {WHEN}",
        {"from_": "a.example", "by": "d.example", "protocol": "ESMTP", "ip": "192.0.2.1", "id": "2024011510345912-123"},
    ),
    (
        "via SSL",
        f"from a.example ([192.0.2.1]) by mx.example with SMTP via SSL id 5; {WHEN}",
        {"from_": "a.example", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1", "id": "5", "tls": True},
    ),
    (
        "the registered tls clause",
        f"from a.example ([192.0.2.1]) by mx.example with ESMTP id 5 tls TLS_AES_128_GCM_SHA256; {WHEN}",
        {"from_": "a.example", "by": "mx.example", "protocol": "ESMTP", "ip": "192.0.2.1", "id": "5", "tls": True},
    ),
    (
        "UUCP days",
        f"from decvax.UUCP by ucbvax.ARPA (4.12/4.7)\n\tid AA01234; {WHEN}",
        {"from_": "decvax.UUCP", "by": "ucbvax.ARPA", "id": "AA01234"},
    ),
    ("UUCP days, only by", f"by mcvax.UUCP; {WHEN} (UUCP)", {"by": "mcvax.UUCP"}),
    (
        "via UUCP",
        f"from seismo by munnari.oz via UUCP id AA1; {WHEN}",
        {"from_": "seismo", "by": "munnari.oz", "protocol": "UUCP", "id": "AA1"},
    ),
    (
        "a quoted local part",
        f'from a.example ([192.0.2.1]) by mx.example with ESMTP id 5 for <"; by (x"@example.org>; {WHEN}',
        {"from_": "a.example", "by": "mx.example", "protocol": "ESMTP", "ip": "192.0.2.1", "id": "5"}
        | {"for_": '"; by (x"@example.org'},
    ),
    (
        "semicolons and parentheses in comments",
        f"from a.example (a.example [192.0.2.1] (a; by evil with ESMTPS; (b))) by mx.example with SMTP id 5; "
        f"{WHEN} (x; y)",
        {"from_": "a.example", "reverse": "a.example", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1"}
        | {"id": "5"},
    ),
    (
        "hosts called by and with",
        f"from by (by [192.0.2.1]) by with (Postfix) with SMTP id 5; {WHEN}",
        {"from_": "by", "reverse": "by", "by": "with", "protocol": "SMTP", "ip": "192.0.2.1", "id": "5"},
    ),
    (
        "an empty HELO name",
        f"from  by mx.example with SMTP id 5; {WHEN}",
        {"by": "mx.example", "protocol": "SMTP", "id": "5"},
    ),
    (
        "several semicolons",
        f"from a.example ([192.0.2.1]) by mx.example; Tue, 1 Jan 1991 00:00:00 +0000; {WHEN}",
        {"from_": "a.example", "by": "mx.example", "ip": "192.0.2.1"},
    ),
    (
        "no semicolon at all",
        f"from a.example ([192.0.2.1]) by mx.example with SMTP id 5 for <u@b.example> {WHEN} (EST)",
        {"from_": "a.example", "by": "mx.example", "protocol": "SMTP", "ip": "192.0.2.1", "id": "5"}
        | {"for_": "u@b.example"},
    ),
]

FIELDS = ("from_", "reverse", "by", "protocol", "ip", "tls", "id", "for_")


@pytest.mark.parametrize(("line", "expected"), [line[1:] for line in LINES], ids=[line[0] for line in LINES])
@pytest.mark.parametrize("form", ["text", "octets"])
def test_a_line_of(line: str, expected: dict[str, Any], form: str) -> None:
    received = parse_received(line if form == "text" else line.encode())
    assert {name: getattr(received, name) for name in FIELDS} == dict.fromkeys(FIELDS, "") | {"tls": False} | expected
    assert received.time == MOMENT
    assert received.warnings == ()


def test_reports_an_unclosed_comment_and_reads_on() -> None:
    received = parse_received(f"from a.example (unknown [192.0.2.1] by mx.example with ESMTP id 5; {WHEN}")
    assert (received.by, received.ip, received.id, received.time) == ("mx.example", "192.0.2.1", "5", MOMENT)
    assert received.warnings == ("its comments are not balanced",)


@pytest.mark.parametrize(
    "source",
    [
        "from a.example (envelope-from <x@[203.0.113.5]>) ([192.0.2.1])",
        "from a.example (ident=[203.0.113.5] [192.0.2.1])",
        "from [203.0.113.5] (unknown [192.0.2.1])",
        "from [203.0.113.5] (192.0.2.1)",
        "from x (HELO [203.0.113.5]) (192.0.2.1)",
        "from x (helo=[203.0.113.5 [203.0.113.6]]) (192.0.2.1)",
        "from x ([192.0.2.1] helo=203.0.113.5)",
        "from x (300.1.1.1 [x] [::zz] [192.0.2.1])",
    ],
)
def test_the_address_is_what_the_server_saw_not_what_the_client_said(source: str) -> None:
    assert parse_received(f"{source} by mx.example ([203.0.113.9]) with ESMTP id 5").ip == "192.0.2.1"


def test_an_id_may_be_a_word_of_the_grammar() -> None:
    assert parse_received("by mx.example id tls with ESMTP").id == "tls"


@pytest.mark.parametrize(
    "line",
    [
        "from a.example ([192.0.2.1]) by mx.example with ESMTP (not encrypted) id 5",
        "from tls.example (tls [192.0.2.1]) by mx.example with ESMTP id 5",
        "from a.example (helo=TLSv1.3 [192.0.2.1]) by ssl.example with SMTP id 5",
        "from a.example by mx.example with ESMTP id 5 tls none",
        "from a.example by mx.example with ESMTPA id ESMTPS for <esmtps@tls.example>",
        "from tls by mx.example with ESMTP id 5",
    ],
)
def test_sees_no_tls_without_evidence(line: str) -> None:
    assert parse_received(line).tls is False


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("15 Jan 2024 10:35:00 -0500", MOMENT),
        ("Mon,15 Jan 2024 10:35:00 -0500", MOMENT),
        ("Monday, 15-Jan-24 10:35:00 EST", MOMENT),
        ("Mon, 15 January 2024 10:35:00 EST", MOMENT),
        ("Mon, 15 Jan (the ides; nearly) 2024 10:35:00 (am) -0500 (EST)", MOMENT),
        ("Mon, 15 Jan 2024 10:35 -0500", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 +000", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 +0", MOMENT),
        ("Mon, 15 Jan 2024 21:05:00 +530", MOMENT),
        ("Mon, 15 Jan 2024 21:05:00 +05:30", MOMENT),
        ("Mon, 15 Jan 2024 17:35:00 GMT+0200", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 -0000", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 gmt", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 UT", MOMENT),
        ("Mon, 15 Jan 2024 15:35:00 Z", MOMENT),
        ("Mon, 15 Jan 2024 11:35:00 EDT", MOMENT),
        ("Mon, 15 Jan 2024 09:35:00 CST", MOMENT),
        ("Mon, 15 Jan 2024 10:35:00 CDT", MOMENT),
        ("Mon, 15 Jan 2024 08:35:00 mst", MOMENT),
        ("Mon, 15 Jan 2024 09:35:00 MDT", MOMENT),
        ("Mon, 15 Jan 2024 07:35:00 PST", MOMENT),
        ("Mon, 15 Jan 2024 08:35:00 PDT", MOMENT),
        ("Mon, 15 Jan 2024 3:35:00 PM +0000", MOMENT),
        ("Mon, 15 Jan 2024 10:35:00.25 -0500", MOMENT + 0.25),
        ("Mon Jan 15 10:35:00 EST 2024", MOMENT),
        ("Mon Jan 15 10:35:00 -0500 2024", MOMENT),
        ("2024-01-15T10:35:00-05:00", MOMENT),
        ("2024-01-15 15:35:00.000Z", MOMENT),
        ("Sat, 31 Dec 2016 23:59:60 +0000", datetime(2017, 1, 1, tzinfo=UTC).timestamp()),
        ("Sun, 7-Sep-86 06:22:34 EDT", datetime(1986, 9, 7, 10, 22, 34, tzinfo=UTC).timestamp()),
        ("Thu, 12 Apr 84 21:59:22 PST", datetime(1984, 4, 13, 5, 59, 22, tzinfo=UTC).timestamp()),
        ("12 Apr 124 21:59:22 GMT", datetime(2024, 4, 12, 21, 59, 22, tzinfo=UTC).timestamp()),
    ],
)
def test_reads_dates_of_all_times(date: str, expected: float) -> None:
    received = parse_received(f"by mx.example; {date}")
    assert received.time == expected
    assert received.warnings == ()


@pytest.mark.parametrize(
    ("date", "warning"),
    [
        ("Mon, 15 Jan 2024 15:35:00 XYZ", "its zone XYZ is not known: read as UTC"),
        ("Mon, 15 Jan 2024 15:35:00 CET", "its zone CET is not known: read as UTC"),
        ("Mon, 15 Jan 2024 15:35:00", "its date has no zone: read as UTC"),
        ("Mon Jan 15 15:35:00 2024", "its date has no zone: read as UTC"),
        ("Mon, 15 Jan 2024 15:35:00 +9999", "its zone +9999 is none: read as UTC"),
    ],
)
def test_reads_an_unknown_zone_as_utc_and_says_so(date: str, warning: str) -> None:
    received = parse_received(f"by mx.example; {date}")
    assert received.time == MOMENT
    assert received.warnings == (warning,)


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("by mx.example", "it has no date"),
        ("by mx.example;", "it has no date"),
        (f"by mx.example; {WHEN};", "it has no date"),
        (f"by mx.example; {WHEN}; x", "it has no date"),
        ("by mx.example; yesterday", "it has no date"),
        (f"by mx.example (; {WHEN})", "it has no date"),
        ("by mx.example; Mon, 31 Feb 2024 15:35:00 +0000", "its date cannot be true"),
        ("by mx.example; Mon, 15 Jan 2024 25:35:00 +0000", "its date cannot be true"),
        ("by mx.example; Mon, 15 Foo 2024 15:35:00 +0000", "its date cannot be true"),
        ("by mx.example; Mon, 0 Jan 2024 15:35:00 +0000", "its date cannot be true"),
        ("by mx.example; Fri, 31 Dec 9999 23:59:59 -2359", "its date cannot be true"),
        ("by mx.example; Thu, 1 Jan 1970 00:00:00 +1000", "its date cannot be true"),
        ("by mx.example; Mon, 15 Jan 20240 15:35:00 +0000", "it has no date"),
    ],
)
def test_gives_no_time_rather_than_a_wrong_one(line: str, warning: str) -> None:
    received = parse_received(line)
    assert received.time is None
    assert received.warnings == (warning,)
    assert received.by == "mx.example"


def test_control_and_format_characters_are_replaced() -> None:
    hostile = (
        f"from a\x1b[2J\u202eb\x00\x9b\u2028.example ([192.0.2.1]) by mx.example\x07 with ESMTP id \ud800x; {WHEN}"
    )
    received = parse_received(hostile)
    assert all(text.isprintable() for text in (received.from_, received.by, received.id, received.protocol))
    assert received.ip == "192.0.2.1"
    assert received.warnings[0] == "it holds control characters"


def test_invalid_utf8_is_replaced() -> None:
    assert parse_received(b"by \xff\xfe.example; " + WHEN.encode()).by == "\ufffd\ufffd.example"


def test_long_texts_are_cut() -> None:
    received = parse_received(f"from {'a' * 2000} by {'b' * 2000} with X id {'c' * 2000}; {WHEN}")
    assert received.time == MOMENT
    assert {len(received.from_), len(received.by), len(received.id)} == {401}


def test_a_line_beyond_the_limit_gives_no_time() -> None:
    received = parse_received(f"by mx.example; {WHEN};" + "x" * 200_000 + f"; {WHEN}")
    assert (received.by, received.time) == ("mx.example", None)
    assert received.warnings[0].startswith(f"only the first {LIMIT} of its 2")


PIECES = ["(", ")", '"', "\\", ";", "[", "]", "<", ">", "@", " ", "from ", "by ", "with ", "tls ", "helo=[", "(HELO "]
PIECES += ["1 ", "Mon, ", "15 Jan 2024 ", "[192.0.2.1]", "x", "encrypted ", "1:2", "=", "\t", "\u202e", "a" * 50]


@given(st.one_of(st.binary(max_size=500), st.text(max_size=500), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_anything_is_read_without_an_error(value: bytes | str) -> None:
    received = parse_received(value)
    for name in FIELDS:
        text = getattr(received, name)
        assert isinstance(text, bool) or (text.isprintable() and len(text) <= 401)


def _steps(line: str) -> int:
    """How many lines of Python the reader runs for a Received line."""
    count = 0

    def tracer(frame: Any, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        parse_received(line)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("start", ["", "from (", "from x (", 'for "', "by x; ", "by x; Mon, 15 Jan 2024 10:35:00 "])
def test_steps_grow_no_faster_than_the_line(start: str, piece: str) -> None:
    short, long = (_steps(start + piece * (size // len(piece))) for size in (1000, 4000))
    assert long <= 5 * short + 500
    assert long < 25 * 4000
