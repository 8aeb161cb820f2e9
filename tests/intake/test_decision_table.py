"""The relay decision as a table: every kind of permission and the sender restriction, by client, sender and recipient.

Each cell names the rule that decides. It is asked of `decide`, of `access test` as the control socket answers it, and
of live sessions over real sockets, with TLS, client certificates and AUTH where the client has them: all three must
say the same. P, U and C numbers: the project's list of requirements.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailtui import config
from mailtui.control import access
from mailtui.intake.access import ACCEPT, RULES
from mailtui.intake.verifier import Verifier
from mailtui.model import Account
from tests.intake.conftest import Relay
from tests.support.certificates import Files, anchors, client_context, fingerprint, issue
from tests.support.client import Client

PASSWORD = "pencil of Ann"

CONFIG = """
hostname = "relay.example.org"
[[listener]]
name = "mx"
address = "127.0.0.1:0"
tls = "starttls"
auth = "optional"
client_ca = "{ca}"
{files}
[[listener]]
name = "submission"
address = "127.0.0.1:0"
role = "submission"
tls = "starttls"
client_ca = "{ca}"
{files}
[access]
networks = ["127.1.0.0/16"]
local_domains = ["ours.example"]
relay_domains = ["customer.example"]
recipients = "{recipients}"
certificates = ["{listed}"]
sender_domains = {sender_domains}
"""


@dataclass(frozen=True)
class Who:
    """A client: the address it comes from, and what it has besides."""

    address: str = "127.0.0.9"
    user: str = ""
    certificate: str = ""  # listed | other
    listener: str = "mx"


CLIENTS = {
    "stranger": Who(),
    "network": Who("127.1.2.3"),
    "user": Who(user="ann"),
    "user in the network": Who("127.1.2.3", user="ann"),
    "certificate": Who(certificate="listed"),
    "other certificate": Who(certificate="other"),
    "grant": Who("127.0.0.7"),
    "grant that has ended": Who("127.0.0.8"),
    "submission, no user": Who(listener="submission"),
    "submission, no user, network": Who("127.1.2.3", listener="submission"),
    "submission, no user, grant": Who("127.0.0.7", listener="submission"),
    "submission, no user, certificate": Who(certificate="listed", listener="submission"),
    "submission, user": Who(user="ann", listener="submission"),
}

SENDERS = {"home": "ann@home.example", "away": "ann@away.example", "null": ""}

RECIPIENTS = {
    "foreign": "victim@other.example",
    "ours": "Ann@ours.example",
    "unknown": "nobody@ours.example",
    "backup": "any@customer.example",
    "postmaster": "postmaster@ours.example",
    "literal": "x@[203.0.113.5]",
    "hack": "victim%other.example@ours.example",  # P09: a local part like any other, and no mailbox
}

# What everybody may do who names one of our recipients.
OURS = {"ours": "local-domains", "unknown": "recipients", "backup": "relay-domains", "postmaster": "postmaster",
        "hack": "recipients"}  # fmt: skip
STRANGER = {"foreign": "default", "literal": "default", **OURS}


def permitted(rule: str) -> dict[str, str]:
    return {"foreign": rule, "literal": rule, **OURS}


# The deciding rule by kind of client; where nothing restricts the sender, and where the sender is one of the domains.
TABLE = {
    "stranger": STRANGER,
    "network": permitted("networks"),
    "user": permitted("users"),
    "user in the network": permitted("users"),
    "certificate": permitted("certificates"),  # U12
    "other certificate": STRANGER,
    "grant": permitted("grants"),
    "grant that has ended": STRANGER,
    "submission, no user": dict.fromkeys(RECIPIENTS, "authentication"),  # U09
    "submission, no user, network": dict.fromkeys(RECIPIENTS, "authentication"),
    "submission, no user, grant": dict.fromkeys(RECIPIENTS, "authentication"),
    "submission, no user, certificate": dict.fromkeys(RECIPIENTS, "authentication"),
    "submission, user": permitted("users"),
}

# C2: who may relay, and only they, are bound to sender_domains; S18: postmaster can be told by all.
BOUND = {"network", "user", "user in the network", "certificate", "grant", "submission, user"}
RESTRICTED = {**dict.fromkeys(RECIPIENTS, "sender-domain"), "postmaster": "postmaster"}


def expected(kind: str, sender: str, recipient: str, *, restricted: bool) -> str:
    if restricted and sender == "away" and kind in BOUND:
        return RESTRICTED[recipient]
    return TABLE[kind][recipient]


REPLIES = {
    "default": "554 5.7.1 <{to}>: Relay access denied",
    "recipients": "550 5.1.1 <{to}>: Recipient unknown",
    "sender-domain": "553 5.7.1 <ann@away.example>: Sender domain not allowed",
    "authentication": "530 5.7.0 Authentication required",
}


@dataclass
class World:
    """A running intake with everything that can permit, and the clients' certificates."""

    relay: Relay
    certificates: dict[str, Files]

    @property
    def live(self) -> Any:
        """The relay as the control room sees it."""
        intake = self.relay.intake
        return SimpleNamespace(
            access_rules=lambda: intake.rules,
            accounts=lambda: intake.accounts.all,
            callout=intake.callout,
            grants=intake.grants,
            settings=config.parse(""),
        )

    async def test(self, who: Who, sender: str, recipient: str) -> dict[str, Any]:
        """`access test`, with the options that describe this client."""
        probe = {"client": who.address, "from": f"<{sender}>", "to": recipient, "listener": who.listener}
        if who.user:
            probe |= {"user": who.user, "tls": "1"}
        if who.certificate:
            # As openssl prints it.
            digits = fingerprint(self.certificates[who.certificate]).upper()
            probe |= {"cert": ":".join(digits[i : i + 2] for i in range(0, 64, 2))}
        return await access.test(self.live, probe)

    async def connect(self, who: Who) -> Client:
        """A session as this client has it, after EHLO."""
        port = self.relay.intake.addresses()[0 if who.listener == "mx" else 1][1]
        client = await Client.connect(port, source=who.address)
        if who.certificate or who.user:
            assert (await client.command("STARTTLS")).code == 220
            shows = self.certificates.get(who.certificate)
            await client.start_tls(client_context(verify=False, shows=shows))
        assert (await client.command("EHLO ours.example")).code == 250  # a HELO name permits nothing (P03)
        if who.user:
            secret = base64.b64encode(f"\0{who.user}\0{PASSWORD}".encode()).decode()
            assert (await client.command(f"AUTH PLAIN {secret}")).code == 235
        return client


@pytest.fixture
async def world(relay, tls_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mailtui.intake.accounts.ITERATIONS", 4096)
    known = tmp_path / "recipients"
    known.write_text("ann@ours.example\n@customer.example\n")
    certificates = {name: issue(tmp_path / name, f"{name}.example") for name in ("listed", "other")}

    async def start(*, restricted: bool) -> World:
        one = await relay(
            CONFIG.format(
                ca=anchors(tmp_path / "clients.pem"),
                files=tls_files.toml,
                recipients=known,
                listed=fingerprint(certificates["listed"]),
                sender_domains='["home.example"]' if restricted else "[]",
            )
        )
        one.intake.accounts.put(Account("ann", Verifier.make(PASSWORD, iterations=4096).text, 0.0))
        await one.intake.grants.grant("127.0.0.8", 60.0, "pop")
        one.clock.advance(60.0)
        await one.intake.grants.grant("127.0.0.7", 60.0, "pop")
        return World(one, certificates)

    return start


restrictions = pytest.mark.parametrize("restricted", [False, True], ids=["any sender", "sender_domains"])


def test_the_table_is_whole():
    rows = [*TABLE.values(), RESTRICTED]
    assert TABLE.keys() == CLIENTS.keys()
    assert all(row.keys() == RECIPIENTS.keys() for row in rows)
    named = {rule for row in rows for rule in row.values()}
    # The others have tests of their own: addresses that are none, our own literals, callouts.
    assert {name for name, _ in RULES} - named == {"sender-syntax", "recipient-syntax", "address-literal", "callout"}


@restrictions
async def test_access_test_names_the_rule(world, restricted):  # P01
    here = await world(restricted=restricted)
    for kind, who in CLIENTS.items():
        for said, sender in SENDERS.items():
            for named, recipient in RECIPIENTS.items():
                rule = expected(kind, said, named, restricted=restricted)
                found = await here.test(who, sender, recipient)
                cell = (kind, said, named, found)
                assert found["rule"] == rule, cell
                assert found["verdict"] == ("reject" if rule in REPLIES else "accept"), cell
                told = f"{found['code']} {found['enhanced']} {found['text']}"
                assert told == REPLIES.get(rule, "250 2.1.5 Recipient ok").format(to=recipient), cell
                names = [name for name, _ in RULES]
                assert [row["rule"] for row in found["passed_over"]] == names[: names.index(rule)], cell
                assert all(row["why"] for row in found["passed_over"]), cell


@restrictions
@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_live_session_says_the_same(world, kind, restricted):  # P01, P07, P08, P09, P15
    here = await world(restricted=restricted)
    who = CLIENTS[kind]
    for sender in SENDERS.values():
        client = await here.connect(who)
        said = await client.command(f"MAIL FROM:<{sender}>")
        accepted = []
        for recipient in RECIPIENTS.values():
            found = await here.test(who, sender, recipient)
            if said.code == 250:
                reply = await client.command(f"RCPT TO:<{recipient}>")
            else:
                reply = said  # AUTH is asked for before there is a recipient
            assert reply.text == f"{found['code']} {found['enhanced']} {found['text']}", (sender, recipient)
            if found["verdict"] == ACCEPT:
                accepted.append(recipient)
            else:
                assert here.relay.told("refused")[-1]["rule"] == found["rule"]
        if accepted:
            assert (await client.command("DATA")).code == 354
            await client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert (await client.reply()).code == 250
            message = here.relay.queue.messages[-1]
            assert [one.address for one in message.recipients] == accepted
            assert message.envelope.trusted == (kind in BOUND)
        await client.close()
