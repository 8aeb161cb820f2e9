"""`mailtui access` on the relay's side: the rehearsal of a decision, temporary grants, saved probes.

Promises: a rehearsal is decided by the rules, grants and callouts of the sessions, and sends no mail; what is set is on
disk when the answer comes.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mailtui.address import Mailbox
from mailtui.clock import rfc3339
from mailtui.control import views
from mailtui.control.clean import clean, clean_value
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.reads import Document
from mailtui.model import Account, Control
from mailtui.values import format_duration, parse_fingerprint

if TYPE_CHECKING:
    from mailtui.intake.access import AccessRules, Address, Question
    from mailtui.intake.grants import Grant, Grants
    from mailtui.intake.probes import Outcome


def question_of(probe: Document, rules: "AccessRules", grant: "Callable[[Address | None], Grant | None]") -> "Question":
    """The question that `access test` asks. `grant` gives the one that a client has now. VerbError."""
    from mailtui.intake.access import parse_client, question_from_text

    missing = [f"--{name}" for name in ("client", "from", "to") if name not in probe]
    if missing:
        raise VerbError(f"{', '.join(missing)} is missing; access test needs --client IP --from A --to B", WRONG)
    listener = str(probe.get("listener") or "")
    if listener and listener not in rules.roles:
        known = ", ".join(rules.roles) or "none"
        raise VerbError(f'there is no listener "{clean(listener[:80])}"; known: {clean(known)}', WRONG)
    try:
        client = parse_client(str(probe["client"]))
    except ValueError:
        raise VerbError(
            f'--client "{clean(str(probe["client"])[:80])}" is no IP address; for example --client 203.0.113.9', WRONG
        ) from None
    return question_from_text(
        str(client),
        str(probe["from"]),
        str(probe["to"]),
        rules=rules,
        user=str(probe.get("user") or ""),
        certificate=fingerprint(str(probe.get("cert") or "")),
        tls=bool(probe.get("tls")),
        helo=str(probe.get("helo") or ""),
        listener=listener,
        grant=grant(client),
    )


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint, with or without colons, as the rules have it; "" for none. VerbError."""
    if not text:
        return ""
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise VerbError(f"--cert {clean(str(error))}", WRONG) from None


async def test(live: Live, probe: Document) -> Document:
    """`access test` of a running relay: the decision that a session would get, the word of the next hop included."""
    from mailtui.intake.access import decide

    rules = live.access_rules()
    question = question_of(probe, rules, live.grants.find)
    decision = decide(rules, question)
    if decision.ask and isinstance(question.recipient, Mailbox):
        question.known = await live.callout.ask(question.recipient)
        decision = decide(rules, question)
    doubts = _doubts(question.user, live.accounts(), elsewhere=bool(live.settings.access.auth_socket))
    decision.passed_over[:0] = doubts
    return views.decision(decision)


def test_offline(
    rules: "AccessRules", grants: "Grants", probe: Document, accounts: Iterable[Account], *, elsewhere: bool
) -> Document:
    """`access test` of a stopped relay, which asks no next hop: what only that knows is a deferral."""
    from mailtui.intake.access import decide

    question = question_of(probe, rules, grants.find)
    decision = decide(rules, question)
    decision.passed_over[:0] = _doubts(question.user, accounts, elsewhere=elsewhere)
    return views.decision(decision)


def _doubts(user: str, accounts: Iterable[Account], *, elsewhere: bool) -> list[tuple[str, str]]:
    """Why no client could be authenticated as `user`, of which the rules know nothing; empty if one could.

    `elsewhere`: somebody else knows the accounts ([access] auth_socket), of which only the quarantine is ours."""
    from mailtui.intake.accounts import folded

    if not user:
        return []
    try:
        name = folded(user)
    except ValueError:
        name = ""
    account = next((each for each in accounts if each.name == name), None)
    if account is None:
        return [] if elsewhere else [("authentication", f'there is no account "{user}", so no client can be it')]
    if account.quarantined is not None:
        return [("authentication", f'the account "{account.name}" is in quarantine, so no client can be it')]
    return []


# -- listings --------------------------------------------------------------------------------------------------------


def grant_rows(grants: "Grants") -> list[Document]:
    """`access grants`: the one that ends first stands first."""
    return [
        {
            "address": grant.address,
            "until": rfc3339(grant.until),
            "by": clean(grant.by),
            "since": rfc3339(grant.since),
            "reason": clean(grant.reason),
        }
        for grant in grants.all()
    ]


def probe_rows(controls: Iterable[Control]) -> list[Document]:
    """`access probe list`."""
    from mailtui.intake.probes import as_row

    return [_shown(as_row(control)) for control in controls]


def _shown(row: Any) -> Document:
    value = clean_value({**row, "since": rfc3339(row["since"])})
    assert isinstance(value, dict)
    return value


def outcome_rows(outcomes: "Iterable[Outcome]") -> list[Document]:
    """`access probe run`: how each probe fared. `holds`; `error` says why not."""
    return [
        {
            "name": clean(outcome.probe.name),
            "holds": not outcome.error,
            "expect": outcome.probe.expect,
            "expect_rule": outcome.probe.rule,
            "verdict": outcome.decision.verdict if outcome.decision else None,
            "code": views.code(outcome.decision.code) if outcome.decision else None,
            "text": clean(outcome.decision.text) if outcome.decision else "",
            "rule": outcome.decision.rule if outcome.decision else None,
            "error": clean(outcome.error),
        }
        for outcome in outcomes
    ]


# -- orders ----------------------------------------------------------------------------------------------------------


async def order(live: Live, name: str, values: Document, who: str, reason: str) -> str:
    """Carry out a verb of `access`; what was done, in words. VerbError."""
    from mailtui.intake.grants import GrantError
    from mailtui.intake.probes import ProbeError

    try:
        match name:
            case "access.grant":
                return await _grant(live, values, who, reason)
            case "access.revoke":
                if not await live.grants.revoke(values["ip"]):
                    raise VerbError(f"{clean(values['ip'][:80])} has no grant; see mailtui access grants", NOT_SO)
                return f"{clean(values['ip'])} may not relay by a grant any more"
            case "access.probe.add":
                return await _add_probe(live, values, who, reason)
            case _:
                if not await live.probes.remove(values["name"]):
                    raise VerbError(
                        f"there is no probe {clean(values['name'][:80])}; see mailtui access probe list", NOT_SO
                    )
                return f"probe {clean(values['name'])} removed"
    except (GrantError, ProbeError) as error:
        raise VerbError(f"{name.replace('.', ' ')}: {clean(str(error))}", WRONG) from None


async def _grant(live: Live, values: Document, who: str, reason: str) -> str:
    from mailtui.intake.grants import USUAL

    seconds = values.get("for", USUAL)
    grant = await live.grants.grant(values["ip"], seconds, who, reason)
    return f"{grant.address} may relay for {format_duration(seconds)}, until {rfc3339(grant.until)}"


async def _add_probe(live: Live, values: Document, who: str, reason: str) -> str:
    from mailtui.intake import probes

    rules = live.access_rules()
    probe = probes.checked(
        probes.Probe(
            name=values["name"],
            client=values["client"],
            sender=values["from"],
            recipient=values["to"],
            expect=values["expect"],
            rule=values.get("rule", ""),
            user=values.get("user", ""),
            certificate=fingerprint(values.get("cert", "")),
            tls=bool(values.get("tls")),
            helo=values.get("helo", ""),
            listener=values.get("listener", ""),
        ),
        rules,
    )
    await live.probes.add(probe, who, reason)
    failed = probes.run([probe], rules)[0].error
    return f"probe {clean(probe.name)} is kept" + (f"; now it {clean(failed)}" if failed else ", and holds now")
