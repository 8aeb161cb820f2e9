"""The relay decision: the default is to refuse. P numbers: the project's list of requirements."""

import ipaddress
import os

import pytest

from mailtui import config
from mailtui.intake.access import RULES, AccessRules, KnownRecipients, decide, parse_client, question_from_text

HOST = 'hostname = "relay.example.org"\n'
RULES_TOML = """
[access]
networks = ["192.0.2.0/24", "2001:db8:1::/48"]
local_domains = ["ours.example", "relay.example.org"]
relay_domains = ["customer.example"]
recipients = "any"
"""


def rules(toml: str = RULES_TOML) -> AccessRules:
    return AccessRules.from_settings(config.parse(HOST + toml))


def ask(to: str, client: str = "198.51.100.7", sender: str = "a@b.example", given=None, **more):
    given = given or rules()
    return decide(given, question_from_text(client, sender, to, rules=given, **more))


@pytest.mark.parametrize(
    ("client", "to", "verdict", "rule"),
    [
        ("198.51.100.7", "x@other.example", "reject", "default"),
        ("198.51.100.7", "x@ours.example", "accept", "local-domains"),
        ("198.51.100.7", "x@OURS.example", "accept", "local-domains"),
        ("198.51.100.7", "x@customer.example", "accept", "relay-domains"),
        ("198.51.100.7", "x@sub.ours.example", "reject", "default"),  # P06
        ("198.51.100.7", "x@evilours.example", "reject", "default"),
        ("198.51.100.7", "x@ours.example.evil.example", "reject", "default"),
        ("198.51.100.7", "postmaster@ours.example", "accept", "postmaster"),
        ("198.51.100.7", "postmaster@other.example", "reject", "default"),
        ("198.51.100.7", "postmaster", "accept", "postmaster"),
        ("192.0.2.9", "x@other.example", "accept", "networks"),
        ("::ffff:192.0.2.9", "x@other.example", "accept", "networks"),  # P04
        ("2001:db8:1::5", "x@other.example", "accept", "networks"),
        ("2001:db8:1::5%eth0", "x@other.example", "accept", "networks"),
        ("2001:db8:2::5", "x@other.example", "reject", "default"),
        ("192.0.3.9", "x@other.example", "reject", "default"),
        ("192.0.2.9", "x@[203.0.113.5]", "accept", "networks"),  # S24
        ("198.51.100.7", "x@[203.0.113.5]", "reject", "default"),
        ("::1", "x@other.example", "reject", "default"),
    ],
)
def test_who_may_send_where(client, to, verdict, rule):
    decision = ask(to, client)
    assert (decision.verdict, decision.rule) == (verdict, rule)


VICTIMS = """victim@other.example|victim%other.example@ours.example|victim%other.example@[192.0.2.1]
victim%other.example|victim%other.example@localhost|"victim@other.example"|"victim%other.example"|"victim@other.example"@[192.0.2.1]
victim@other.example@ours.example|victim@ours.example@other.example|victim@other.example@[192.0.2.1]
<@ours.example:victim@other.example>|<@[192.0.2.1]:victim@other.example>|<@ours.example,@ours.example:victim@other.example>
<@localhost:victim@other.example>|other.example!victim|other.example!victim@[192.0.2.1]|victim
victim@other.example(@ours.example)|victim@other.example.|victim@other.example\t@ours.example|victim@other.example\r@ours.example
victim@other.example\x00@ours.example|victim＠other.example|victim@other。example|<<victim@other.example>>
<x@ours.example> <victim@other.example>|Name <victim@other.example>|victim@ours.example,victim@other.example
victim@[198.51.100.7]|victim@[IPv6:::1]|victim@[127.0.0.1]|ours.example!other.example!victim@[192.0.2.1]"""


@pytest.mark.parametrize("sender", ["a@b.example", "<>", "x@ours.example", "victim@other.example", "x@[192.0.2.1]",
                                    "postmaster@ours.example", "spammer@localhost", "spammer"])  # fmt: skip
@pytest.mark.parametrize("victim", [v for line in VICTIMS.split("\n") for v in line.split("|")])
def test_no_way_to_relay_for_a_stranger(victim, sender):  # P07 to P14
    decision = ask(victim, sender=sender, helo="ours.example")
    if victim == "victim%other.example@ours.example" and sender != "spammer":
        # A local part like any other at our domain; nobody interprets the percent sign.
        assert decision.rule == "local-domains"
    else:
        assert decision.verdict == "reject"
        assert 500 <= decision.code < 600


def test_relay_denied_says_the_address():
    assert str(ask("victim@other.example").reply) == "554 5.7.1 <victim@other.example>: Relay access denied"


def test_every_rule_before_says_why_it_was_passed_over():
    decision = ask("x@other.example")
    assert [name for name, _ in decision.passed_over] == [name for name, _ in RULES][:-1]
    assert all(why for _, why in decision.passed_over)
    assert (
        decide(
            rules(), question_from_text("192.0.2.9", "a@b.example", "x@y.example", rules=rules()), explain=False
        ).passed_over
        == []
    )


@pytest.mark.parametrize(
    ("sender", "to", "code", "enhanced", "rule"),
    [
        ("nobody", "x@ours.example", 501, "5.1.7", "sender-syntax"),
        ("a@b.example", "x@@y", 501, "5.1.3", "recipient-syntax"),
        ("a@b.example", "", 501, "5.1.3", "recipient-syntax"),
        ("a@b.example", "grün@ours.example", 553, "5.6.7", "recipient-syntax"),
        ("a@b.example", "<x@ours.example> NOTIFY=NEVER", 501, "5.5.4", "recipient-syntax"),
    ],
)
def test_syntax_is_refused_with_the_reply_of_a_session(sender, to, code, enhanced, rule):
    decision = ask(to, sender=sender)
    assert (decision.code, decision.enhanced, decision.rule) == (code, enhanced, rule)


def test_a_client_that_is_no_address():
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        ask("x@ours.example", client="mail.example.org")


def test_own_address_is_no_way_to_relay():  # S24
    own = rules('[[listener]]\nname="mx"\naddress="127.0.0.1:25"\n[delivery]\nown_addresses = ["203.0.113.9"]\n')
    for literal in ("[203.0.113.9]", "[127.0.0.1]", "[IPv6:::ffff:203.0.113.9]"):
        decision = ask(f"x@{literal}", client="127.0.0.1", given=own)
        assert (decision.verdict, decision.rule) == ("reject", "address-literal")
    assert ask("x@[203.0.113.8]", client="127.0.0.1", given=own).verdict == "accept"
    # Where we do not listen on the port that mail leaves to, the address is that of another server.
    other = rules('[[listener]]\nname="mx"\naddress="127.0.0.1:2525"\n')
    assert ask("x@[127.0.0.1]", client="127.0.0.1", given=other).verdict == "accept"


def test_listening_everywhere_means_every_address_of_ours():
    toml = '[[listener]]\nname="mx"\naddress="0.0.0.0:25"\n[mail]\npostmaster = "p@ours.example"\n'
    everywhere = rules(toml)
    question = question_from_text("127.0.0.1", "a@b.example", "x@[203.0.113.9]", rules=everywhere)
    question.local = ipaddress.ip_address("203.0.113.9")
    assert decide(everywhere, question).rule == "address-literal"
    assert ask("x@[127.0.0.1]", client="127.0.0.1", given=everywhere).rule == "address-literal"


def test_address_literals_can_be_off():
    off = rules("[access]\naddress_literals = false\n")
    assert ask("x@[203.0.113.8]", client="127.0.0.1", given=off).text.endswith("Address literals are not accepted")


def test_sender_domains_restrict_and_never_permit():  # C2
    given = rules()
    given.sender_domains = frozenset({"ours.example"})
    assert ask("x@other.example", client="192.0.2.9", sender="u@ours.example", given=given).verdict == "accept"
    assert ask("x@other.example", client="192.0.2.9", sender="<>", given=given).verdict == "accept"
    refused = ask("x@other.example", client="192.0.2.9", sender="u@elsewhere.example", given=given)
    assert str(refused.reply) == "553 5.7.1 <u@elsewhere.example>: Sender domain not allowed"
    assert refused.rule == "sender-domain"
    assert ask("x@ours.example", client="192.0.2.9", sender="u@elsewhere.example", given=given).verdict == "reject"
    assert ask("postmaster@ours.example", client="192.0.2.9", sender="u@x.example", given=given).verdict == "accept"
    assert ask("x@other.example", sender="u@ours.example", given=given).rule == "default"  # P03: it permits nobody
    assert ask("x@ours.example", sender="u@elsewhere.example", given=given).verdict == "accept"


def test_users_may_relay_and_submission_wants_users():
    assert ask("x@other.example", user="ann").rule == "users"
    decision = ask("x@ours.example", client="192.0.2.9", role="submission")
    assert (decision.code, decision.enhanced, decision.rule) == (530, "5.7.0", "authentication")
    assert ask("x@other.example", user="ann", role="submission").verdict == "accept"


def test_postmaster_without_a_domain_needs_a_place():  # S18
    nowhere = rules("")
    assert ask("postmaster", given=nowhere).code == 550
    placed = rules('[mail]\npostmaster = "root@b.example"\n')
    decision = ask("POSTMASTER", given=placed)
    assert decision.verdict == "accept"
    assert decision.recipient is not None and decision.recipient.text == "root@b.example"


def test_known_recipients(tmp_path):  # B02
    path = tmp_path / "recipients"
    path.write_text('# ours\nAnn@ours.example\n\n@customer.example\n"john doe"@ours.example\n')
    given = rules(RULES_TOML.replace('"any"', f'"{path}"'))
    for to in ("ann@ours.example", "ANN@OURS.example", "any@customer.example", '"john doe"@ours.example'):
        assert ask(to, given=given).verdict == "accept", to
    for client in ("198.51.100.7", "192.0.2.9"):
        decision = ask("bob@ours.example", client=client, given=given)
        assert str(decision.reply) == "550 5.1.1 <bob@ours.example>: Recipient unknown"
    assert ask("postmaster@ours.example", given=given).verdict == "accept"


def test_recipients_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "recipients"
    path.write_text("ann@ours.example\n")
    known = KnownRecipients(str(path))
    assert known.refresh() and not known.refresh()
    path.write_text("bob@ours.example\nnonsense\n")
    os.utime(path, ns=(1, 1))
    given = rules()
    given.recipients = known
    assert ask("bob@ours.example", given=given).verdict == "reject"
    assert known.refresh()
    assert ask("bob@ours.example", given=given).verdict == "accept"
    assert ask("ann@ours.example", given=given).verdict == "reject"
    assert "line 2 is no address" in known.error
    path.unlink()
    assert not known.refresh()
    assert "cannot read" in known.error
    assert ask("bob@ours.example", given=given).verdict == "accept"  # the last list stays


def test_no_list_at_all_defers(tmp_path):
    given = rules(RULES_TOML)
    given.recipients = KnownRecipients(str(tmp_path / "missing"))
    given.recipients.refresh()
    decision = ask("ann@ours.example", given=given)
    assert (decision.verdict, decision.code) == ("defer", 451)


def test_parse_client():
    assert parse_client("::ffff:192.0.2.1") == ipaddress.ip_address("192.0.2.1")
    assert parse_client("fe80::1%eth0") == ipaddress.ip_address("fe80::1")
    assert str(parse_client("::1")) == "::1"
