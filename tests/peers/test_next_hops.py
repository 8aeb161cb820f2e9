"""A Postfix as next hop and as smarthost that wants a login: what it stores, and what it says of how that came."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Live, Start
from tests.peers.certificates import Certificates
from tests.peers.content import MESSAGE, below, report, trace
from tests.peers.dovecot import PASSWORD, USER
from tests.peers.postfix import INTERNATIONAL, Postfix
from tests.peers.programs import mailbox

WriteSecrets = Callable[[str], Path]

STRANGERS = '[tls]\nca_file = "/etc/ssl/certs/ca-certificates.crt"\n'


def believing(certificates: Certificates) -> str:
    return f'[tls]\nca_file = "{certificates.authority}"\n'


def route(postfix: Postfix, service: str, level: str = "", scheme: str = "smtp") -> str:
    """All mail to a service of this Postfix, at a level."""
    tls = f'tls = "{level}"\n' if level else ""
    return f'[[route]]\nmatch = "*"\ntarget = "{scheme}://[localhost]:{postfix.port(service)}"\n{tls}'


def login(postfix: Postfix, service: str, secrets: Path, scheme: str = "smtp") -> str:
    """All mail to a service of this Postfix, as USER."""
    target = f"{scheme}://[localhost]:{postfix.port(service)}"
    return f'[delivery]\nsmarthost = "{target}"\nsmarthost_auth = "{USER}"\nsecrets = "{secrets}"\n'


async def stored(relay: Live, postfix: Postfix, options: list[str] | None = None) -> str:
    """Send a message; it lies in its mailbox unchanged. Gives the trace field of that Postfix."""
    to = postfix.address()
    await relay.send(to, content=MESSAGE, options=options or ["BODY=8BITMIME"])
    [got] = await mailbox(postfix.mailbox(to))
    await relay.told("delivered")
    assert below(got) == MESSAGE
    theirs, ours = trace(got)
    assert b"by postfix.test" in theirs and b"by relay.test" in ours
    assert await relay.rows() == []
    return theirs.decode()


async def test_plain(relay_of: Start, postfix: Postfix) -> None:
    async with relay_of(route(postfix, "plain")) as relay:
        theirs = await stored(relay, postfix)
        assert "from relay.test (localhost [127.0.0.1])" in theirs
        assert "with ESMTP id" in theirs
        [past] = await relay.history()
        assert past["tls"]["reached"] == "none"


async def test_what_postfix_refuses_is_told_to_the_sender(relay_of: Start, postfix: Postfix) -> None:
    async with relay_of(route(postfix, "plain")) as relay:
        known, sender = postfix.address(), postfix.address()
        await relay.send([known, "unknown@next.test"], sender=sender)
        await mailbox(postfix.mailbox(known))
        [told] = await mailbox(postfix.mailbox(sender))
        assert report(told).recipients.keys() == {"unknown@next.test"}
        diagnostic = report(told).recipients["unknown@next.test"]["diagnostic-code"]
        assert diagnostic.startswith("smtp; 550 5.1.1 <unknown@next.test>: Recipient address rejected: User unknown")


async def test_an_international_mailbox(relay_of: Start, postfix: Postfix) -> None:
    # X15, X16: SMTPUTF8 goes on to a next hop that offers it.
    content = "Subject: Grüße aus Köln\r\nFrom: Ännchen <ä@sender.test>\r\n\r\nx\r\n".encode()
    async with relay_of(route(postfix, "plain")) as relay:
        await relay.send(INTERNATIONAL, sender="ä@sender.test", content=content, options=["SMTPUTF8", "BODY=8BITMIME"])
        [got] = await mailbox(postfix.mailbox(INTERNATIONAL))
        assert below(got) == content
        theirs, ours = trace(got)
        assert b"with UTF8SMTP id" in theirs and b"with UTF8SMTP" in ours


@pytest.mark.parametrize("level", ["", "may", "encrypt", "verify"])
async def test_starttls(relay_of: Start, postfix: Postfix, certificates: Certificates, level: str) -> None:
    # L10: STARTTLS where it is offered, on every level but `none`.
    async with relay_of(route(postfix, "starttls", level) + believing(certificates)) as relay:
        theirs = await stored(relay, postfix)
        assert "with ESMTPS id" in theirs
        assert "using TLSv1.3 with cipher" in theirs
        [past] = await relay.history("to:*next.test")
        # L13: what was reached is recorded.
        assert past["tls"]["protocol"] == "TLSv1.3"
        assert past["tls"]["cipher"] in theirs
        if level == "verify":
            assert (past["tls"]["reached"], past["tls"]["verified_by"]) == ("verified", "pkix")


async def test_implicit_tls(
    relay_of: Start, postfix: Postfix, certificates: Certificates, secrets: WriteSecrets
) -> None:
    file = secrets(f"localhost {USER} {PASSWORD}\n")
    config = login(postfix, "submissions", file, "smtps") + believing(certificates)
    async with relay_of(config) as relay:
        theirs = await stored(relay, postfix)
        assert "with ESMTPSA id" in theirs and f"(Authenticated sender: {USER})" in theirs


@pytest.mark.parametrize(
    ("level", "service", "authority"),
    [("verify", "starttls", STRANGERS), ("encrypt", "plain", ""), ("verify", "plain", "")],
)
async def test_a_level_that_is_not_reached_keeps_the_message(
    relay_of: Start, postfix: Postfix, level: str, service: str, authority: str
) -> None:
    # L09: never in clear text instead.
    async with relay_of(route(postfix, service, level) + authority) as relay:
        to = postfix.address()
        number = await relay.send(to)
        await relay.told("deferred")
        row = await relay.row(f"{number}.1")
        assert row["state"] == "deferred"
        why = await relay.why(f"{number}.1")
        assert why["limiter"] == "tls-policy", why
        assert not postfix.mailbox(to).exists()


@pytest.mark.parametrize(
    ("service", "mechanism"),
    [("submission", "SCRAM-SHA-256"), ("scram", "SCRAM-SHA-256"), ("login", "LOGIN"), ("plainauth", "PLAIN")],
)
async def test_a_smarthost_that_wants_a_login(
    relay_of: Start, postfix: Postfix, certificates: Certificates, secrets: WriteSecrets, service: str, mechanism: str
) -> None:
    config = login(postfix, service, secrets(f"localhost {USER} {PASSWORD}\n")) + believing(certificates)
    async with relay_of(config) as relay:
        theirs = await stored(relay, postfix)
        assert "with ESMTPSA id" in theirs and f"(Authenticated sender: {USER})" in theirs
        [past] = await relay.history()
        queued = past["reply"].rpartition("queued as ")[2]
        assert f"{queued}: client=localhost[127.0.0.1], sasl_method={mechanism}, sasl_username={USER}" in (
            postfix.log.read_text()
        )


async def test_a_transcript_does_not_help_to_guess_the_password(
    relay_of: Start, postfix: Postfix, certificates: Certificates, secrets: WriteSecrets
) -> None:
    # Salt and server signature of SCRAM are enough to try passwords at home (RFC 5802 section 9).
    config = login(postfix, "scram", secrets(f"localhost {USER} {PASSWORD}\n")) + believing(certificates)
    async with relay_of(config) as relay:
        number = await relay.send("unknown@next.test", sender="")
        await relay.told("bounced")
        [attempt] = await relay.attempts(number)
    transcript = attempt["transcript"]
    assert "235 2.7.0 Authentication successful" in transcript and "550 5.1.1" in transcript
    words = [word for word in transcript.split() if len(word) > 40]
    assert words == [], words


@pytest.mark.parametrize("service", ["scram", "login", "plainauth"])
async def test_a_wrong_password_keeps_the_message_and_is_told_nowhere(
    relay_of: Start, postfix: Postfix, certificates: Certificates, secrets: WriteSecrets, service: str
) -> None:
    # U06: no password in log, trace or console; a login that fails is ours to mend, so nothing bounces.
    wrong = "wrong-but-still-secret"
    config = login(postfix, service, secrets(f"localhost {USER} {wrong}\n")) + believing(certificates)
    async with relay_of(config) as relay:
        to = postfix.address()
        number = await relay.send(to)
        await relay.told("deferred")
        row = await relay.row(f"{number}.1")
        assert row["state"] == "deferred"
        assert row["last_code"] == "535" or "535" in row["last_reply"], row
        why = await relay.why(f"{number}.1")
        assert "535" in why["because"] and USER in json.dumps([why, await relay.attempts(number)])
        assert not postfix.mailbox(to).exists()
        told = json.dumps([why, row, await relay.attempts(number)]) + json.dumps(list(relay.events.recent))
    secret_forms = {wrong, base64.b64encode(wrong.encode()).decode()}
    secret_forms.add(base64.b64encode(f"\0{USER}\0{wrong}".encode()).decode())
    stored = b"".join(file.read_bytes() for file in relay.state.rglob("*") if file.is_file())
    for secret in secret_forms:
        assert secret not in told
        assert secret.encode() not in stored
