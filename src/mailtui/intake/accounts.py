"""The accounts of SMTP AUTH as sessions ask for them: in memory, loaded from the store, kept current by the verbs.

Promises: asking costs a look into a dict; nobody who asks can tell a name that exists from one that does not: the
second has a verifier too, always the same one for a name, also after a restart (RFC 5802 section 9), which no password
and no proof satisfies. (It has as many rounds as those that `mailtui user` makes.)
"""

import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import replace

from mailtui.intake.verifier import ITERATIONS, SALT_LENGTH, Verifier
from mailtui.model import Account
from mailtui.saslprep import prepared

# Longer than any mail address. In octets of UTF-8, as all that is said of a name.
NAME_LIMIT = 254

# The name of the row whose verifier stands for all accounts that there are not. No account can have it.
NOBODY = ""

# What would have to be quoted in a QUERY, a log line or a shell.
_UNFIT = re.compile(r"""[\s"'\\,*<>=;&|$`!()\[\]{}?~^#%]""")


class Accounts:
    """Names and verifiers. `load` once; then `put` and `remove`."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Account, Verifier]] = {}
        self._nobody = nobody()

    def load(self, accounts: Iterable[Account]) -> None:
        """Take over what the store has. ValueError for a row that is damaged."""
        for account in accounts:
            if account.name == NOBODY:
                self._nobody = Verifier.parse(account.verifier)
            else:
                self.put(account)

    def put(self, account: Account) -> None:
        """A new account, or what an account is from now on. ValueError for a verifier that is none.

        One without a verifier is known to somebody else (`dovecot`): only its quarantine is ours."""
        verifier = Verifier.parse(account.verifier) if account.verifier else self._verifier_of_nobody(account.name)
        self._known[account.name] = (account, verifier)

    def remove(self, name: str) -> None:
        self._known.pop(name, None)

    def get(self, name: str) -> Account | None:
        found = self._known.get(name)
        return found[0] if found is not None else None

    def verifier(self, name: str) -> Verifier:
        """The account's, or what stands for it if there is no such account."""
        found = self._known.get(name)
        if found is not None:
            return found[1]
        return self._verifier_of_nobody(name)

    def _verifier_of_nobody(self, name: str) -> Verifier:
        salt = hmac.digest(self._nobody.server_key, name.encode("utf-8", "surrogatepass"), "sha256")
        return replace(self._nobody, salt=salt[:SALT_LENGTH])

    @property
    def all(self) -> list[Account]:
        """Every account, by name."""
        return [self._known[name][0] for name in sorted(self._known)]

    @property
    def quarantined(self) -> set[str]:
        return {name for name, (account, _) in self._known.items() if account.quarantined is not None}


def nobody() -> Verifier:
    """A verifier that nothing satisfies: its keys are random, so that no password leads to them."""
    return Verifier(os.urandom(SALT_LENGTH), ITERATIONS, os.urandom(32), os.urandom(32))


def folded(text: str) -> str:
    """A name as it is compared: without case, since people type it on telephones. ValueError for what is forbidden."""
    return prepared(text).decode("utf-8").lower()


def account_name(text: str) -> str:
    """The name of a new account in its one form. ValueError with a sentence if it can be none."""
    try:
        name = folded(text)
    except (ValueError, UnicodeEncodeError):
        raise ValueError(f"{text[:80]!a} holds characters that a name must not have") from None
    unfit = _UNFIT.search(name)
    if not name:
        raise ValueError("the name is empty; for example ann, or ann@example.com")
    if unfit is not None or not name.isprintable() or name.startswith(("-", ".")):
        raise ValueError(f"{text[:80]!a} is no name for an account: letters, digits and @ . _ + - / make one")
    if len(name.encode()) > NAME_LIMIT:
        raise ValueError(f"the name is longer than {NAME_LIMIT} octets")
    return name
