"""`mailtui user`: the accounts of SMTP AUTH. What may be done to them, and doing it to a running relay.

Promises: a password never comes here, only its verifier, and that is in no answer, journal line or command; what was
done is on disk when the answer comes and holds for the next login; a quarantine first refuses logins, then ends the
sessions, then holds what is queued, so that nothing of the account gets by; its release gives back exactly what it
held. `offline_users` does the same where no relay runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from mailtui.clock import rfc3339
from mailtui.control.clean import clean
from mailtui.control.controls import Controls
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.orders import Wanted, wanted
from mailtui.control.reads import Document
from mailtui.control.verbs import VERBS
from mailtui.control.words import command_line
from mailtui.intake.accounts import NOBODY, account_name, folded
from mailtui.intake.verifier import Verifier
from mailtui.model import Account
from mailtui.queue.accounts import held_by, queued
from mailtui.queue.read import Reader


def rows(accounts: Sequence[Account], reader: Reader) -> list[Document]:
    """`user list`."""
    waiting = queued(reader)
    return [
        {
            "user": clean(account.name),
            "since": rfc3339(account.since),
            "quarantined": rfc3339(account.quarantined),
            "reason": clean(account.reason),
            "queued": waiting.get(account.name, 0),
        }
        for account in accounts
        if account.name != NOBODY
    ]


# -- what an order makes of an account -------------------------------------------------------------------------------


def changed(want: Wanted, known: Mapping[str, Account], now: float, *, elsewhere: bool) -> Account | None:
    """The account as the order makes it; None: it is removed. VerbError if it cannot be done.

    `elsewhere`: somebody else knows the accounts ([access] auth_socket), so any name may be quarantined."""
    name, verb = named(want), want.verb.name
    account = known.get(name)
    if verb == "user.add":
        if account is not None:
            raise VerbError(f"{name} exists already; change its password with mailtui user passwd {name}", NOT_SO)
        try:
            return Account(account_name(name), verifier_of(want), now)
        except ValueError as error:
            raise VerbError(f"user add: {error}", WRONG) from None
    if account is None and elsewhere and verb == "user.quarantine":
        account = Account(name, "", now)
    if account is None:
        raise VerbError(f"there is no account {clean(name)[:80]}; see mailtui user list", NOT_SO)
    if verb == "user.passwd":
        return replace(account, verifier=verifier_of(want))
    if verb == "user.quarantine":
        since = account.quarantined if account.quarantined is not None else now
        return replace(account, quarantined=since, who=want.who, reason=want.reason or account.reason)
    if verb == "user.release":
        if account.quarantined is None:
            raise VerbError(f"{name} is not in quarantine; see mailtui user list", NOT_SO)
        return replace(account, quarantined=None, who="", reason="") if account.verifier else None
    assert verb == "user.remove"
    return None


def named(want: Wanted) -> str:
    """The name in an order as accounts have it. VerbError."""
    said = str(want.values["name"])
    try:
        return folded(said)
    except ValueError:
        text = f"{said[:80]!a} holds characters that a name must not have"
        raise VerbError(f"{' '.join(want.verb.words)}: {text}", WRONG) from None


def verifier_of(want: Wanted) -> str:
    """The verifier in an order. VerbError."""
    try:
        return Verifier.parse(str(want.values["verifier"])).text
    except ValueError as error:
        raise VerbError(f"{' '.join(want.verb.words)}: the verifier cannot be used: {error}", WRONG) from None


def told(want: Wanted, name: str, was: Account | None, recipients: int = 0, pending: int = 0) -> str:
    """What was done, in a sentence."""
    match want.verb.name:
        case "user.add":
            return f"{name} may log in now"
        case "user.passwd":
            return f"the password of {name} is changed"
        case "user.remove":
            kept = f"; what its quarantine held stays held: mailtui queue release 'user:{name}'"
            return f"{name} is removed" + (kept if was is not None and was.quarantined is not None else "")
        case "user.quarantine":
            more = f", and {pending} in delivery if that fails" if pending else ""
            return f"{name} is in quarantine; {recipients} recipients are held{more}"
        case _:
            return f"{name} may log in again; {recipients} recipients are released"


# -- a running relay -------------------------------------------------------------------------------------------------


class Users:
    """Orders about accounts, one after the other. `run` is the engine's, for what is queued."""

    def __init__(self, live: Live, controls: Controls, run: Callable[[Wanted], Awaitable[Document]]) -> None:
        self.live = live
        self._controls = controls
        self._run = run
        self._turn = asyncio.Lock()

    def _known(self) -> dict[str, Account]:
        return {account.name: account for account in self.live.accounts()}

    def check(self, want: Wanted) -> None:
        """VerbError for an order that cannot be done."""
        self._changed(want)

    def _changed(self, want: Wanted) -> Account | None:
        elsewhere = bool(self.live.settings.access.auth_socket)
        return changed(want, self._known(), self.live.clock.now(), elsewhere=elsewhere)

    async def run(self, want: Wanted) -> Document:
        """Do it. VerbError if it cannot be done."""
        async with self._turn:
            name, live = named(want), self.live
            was = self._known().get(name)
            new = self._changed(want)
            done: Document = {"recipients": 0, "done": 0, "pending": 0}
            if want.verb.name == "user.release":  # what is queued first: a relay that starts between holds it again
                done = await self._queued("queue.release", want, f'user:"{name}" heldby:"{held_by(name)}"')
            if new is None:
                await live.unset_account(name)
            else:
                await live.set_account(new)
            if want.verb.name in ("user.remove", "user.quarantine"):
                await live.close_sessions(name)
            if want.verb.name == "user.quarantine":
                done = await self._queued("queue.hold", want, f'user:"{name}"')
            text = told(want, name, was, done["done"], done["pending"])
            command = command_line(want.verb, args=want.args, reason=want.reason)
            await self._controls.note(want, command, text)
            answer: Document = {"verb": want.verb.name, "command": command, "text": text}
            if want.verb.name in ("user.quarantine", "user.release"):
                answer |= {"recipients": done["done"], "pending": done["pending"]}
            return answer

    async def _queued(self, verb: str, want: Wanted, query: str) -> Document:
        """Hold or release what is queued."""
        return await self._run(wanted(VERBS[verb], held_by(named(want)), query=query, reason=want.reason))
