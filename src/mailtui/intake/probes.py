"""Saved probes: questions whose answer must stay what it is, such as "this stranger stays refused".

Promises: before a configuration is taken over, every probe is asked of its rules, by the same `decide` as a session; a
probe judges what the configuration permits, so that it asks nobody outside, takes every recipient that only its next
hop knows for one that exists, and looks at no temporary grant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mailtui.clock import Clock
from mailtui.intake.access import ACCEPT, DEFER, REJECT, RULES, AccessRules, Decision, decide, question_from_text
from mailtui.intake.grants import Keeper
from mailtui.intake.recipients import EXISTS
from mailtui.model import Control

# The kind of the rows, as the store keeps them.
KIND = "probe"

EXPECTED = (ACCEPT, REJECT, DEFER)

# A reload asks them all on the loop: 10 us each.
MOST = 1000

# Of a name. It stands in lists and on command lines.
NAME_LIMIT = 80


class ProbeError(ValueError):
    """A probe that cannot be kept; the text says why."""


class ProbesFailed(Exception):
    """A configuration would change what probes say must stay; `errors` has a sentence for each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Probe:
    """A question as `access test` takes it, and the answer that it must have. `rule` "": any."""

    name: str
    client: str
    sender: str
    recipient: str
    expect: str
    rule: str = ""
    user: str = ""
    certificate: str = ""
    tls: bool = False
    helo: str = ""
    listener: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a probe fared; `error` is "" if it holds."""

    probe: Probe
    decision: Decision | None  # None: it could not be asked
    error: str


class Probes:
    """The probes that are kept, by name."""

    def __init__(self, clock: Clock, keeper: Keeper) -> None:
        self._clock = clock
        self._keeper = keeper
        self._found: dict[str, Control] = {}

    def load(self, rows: Iterable[tuple[str, Control]]) -> None:
        """At start: what the store remembers."""
        self._found = {control.name: control for kind, control in rows if kind == KIND}

    def controls(self) -> list[Control]:
        """The rows, by name."""
        return [self._found[name] for name in sorted(self._found)]

    def all(self) -> list[Probe]:
        """The probes, by name."""
        return [probe_of(control) for control in self.controls()]

    async def add(self, probe: Probe, by: str, reason: str = "") -> None:
        """Keep a probe, in the place of one of the same name; on disk when it returns. Raises ProbeError."""
        if probe.name not in self._found and len(self._found) >= MOST:
            raise ProbeError(f"there are {MOST} probes already, the most there can be; remove some")
        value = {key: value for key, value in asdict(probe).items() if value and key != "name"}
        control = Control(probe.name, self._clock.now(), None, reason, by, value)
        await self._keeper.set_control(KIND, control)
        self._found[probe.name] = control

    async def remove(self, name: str) -> bool:
        """Forget a probe; False if there is none."""
        if self._found.pop(name, None) is None:
            return False
        await self._keeper.unset_control(KIND, name)
        return True


def probe_of(control: Control) -> Probe:
    """A probe as the store remembers it; fields that a later version knows are left out."""
    known = {key: value for key, value in control.value.items() if key in Probe.__slots__ and key != "name"}
    return Probe(control.name, **{"client": "", "sender": "<>", "recipient": "", "expect": REJECT, **known})


def probe_of_row(row: Mapping[str, Any]) -> Probe:
    """A probe from what `as_row` gave."""
    words = {"from": "sender", "to": "recipient", "cert": "certificate"}
    named = {words.get(key, key): value for key, value in row.items()}
    return Probe(**{key: value for key, value in named.items() if key in Probe.__slots__})


def checked(probe: Probe, rules: AccessRules) -> Probe:
    """The probe, if it can be asked. Raises ProbeError.

    What it expects need not hold now: it may be kept for a configuration that is to come."""
    if (
        not probe.name
        or len(probe.name) > NAME_LIMIT
        or not probe.name.isprintable()
        or probe.name != probe.name.strip()
    ):
        raise ProbeError(f"a probe's name is a printable text of at most {NAME_LIMIT} characters")
    if probe.expect not in EXPECTED:
        raise ProbeError(f'--expect "{probe.expect[:40]}" is none of {", ".join(EXPECTED)}')
    names = [name for name, _ in RULES]
    if probe.rule and probe.rule not in names:
        raise ProbeError(f'there is no rule "{probe.rule[:40]}"; known: {", ".join(names)}')
    if probe.listener and probe.listener not in rules.roles:
        raise ProbeError(f'there is no listener "{probe.listener[:40]}"; known: {", ".join(rules.roles) or "none"}')
    try:
        _ask(probe, rules)
    except ValueError:
        raise ProbeError(f'--client "{probe.client[:80]}" is no IP address; for example 203.0.113.9') from None
    return probe


def run(probes: Iterable[Probe], rules: AccessRules) -> list[Outcome]:
    """Ask every probe of these rules."""
    return [_outcome(probe, rules) for probe in probes]


def failures(probes: Iterable[Probe], rules: AccessRules) -> list[str]:
    """A sentence for each probe that these rules do not answer as it expects."""
    return [f"probe {outcome.probe.name}: {outcome.error}" for outcome in run(probes, rules) if outcome.error]


def _outcome(probe: Probe, rules: AccessRules) -> Outcome:
    if probe.listener and probe.listener not in rules.roles:
        return Outcome(probe, None, f'there is no listener "{probe.listener}" for it')
    try:
        decision = _ask(probe, rules)
    except ValueError as error:
        return Outcome(probe, None, f"it cannot be asked: {error}")
    if decision.verdict == probe.expect and probe.rule in ("", decision.rule):
        return Outcome(probe, decision, "")
    wanted = f"{probe.expect} by rule {probe.rule}" if probe.rule else probe.expect
    return Outcome(probe, decision, f"expects {wanted}, and gets {decision.verdict} by rule {decision.rule}")


def _ask(probe: Probe, rules: AccessRules) -> Decision:
    question = question_from_text(
        probe.client,
        probe.sender,
        probe.recipient,
        rules=rules,
        user=probe.user,
        certificate=probe.certificate,
        tls=probe.tls,
        helo=probe.helo,
        listener=probe.listener,
    )
    question.known = EXISTS
    return decide(rules, question)


def as_row(control: Control) -> Mapping[str, Any]:
    """A probe with its facts, in the words of its command; `since` is seconds."""
    probe = probe_of(control)
    return {
        "name": probe.name,
        "client": probe.client,
        "from": probe.sender,
        "to": probe.recipient,
        "user": probe.user,
        "cert": probe.certificate,
        "tls": probe.tls,
        "helo": probe.helo,
        "listener": probe.listener,
        "expect": probe.expect,
        "rule": probe.rule,
        "by": control.who,
        "since": control.since,
        "reason": control.reason,
    }
