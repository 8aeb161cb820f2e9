"""The known ways to get a relay to send mail for a stranger, to be tried on the rules (`mailtui access check`).

The sixteen of nmap's smtp-open-relay script and those of the project's list (P07 to P14): forged senders, percent and
bang forms, quoted local parts, source routes, double at signs, what looks like an address to somebody further on.
"""

from collections.abc import Iterator

# A stranger and a victim that are nobody's (RFC 5737, RFC 2606).
STRANGER = "203.0.113.9"
VICTIM, ELSEWHERE = "victim", "elsewhere.example"

# Rules by which mail for one of our own mailboxes is taken: "victim%elsewhere.example@ours" is one like any other.
TAKEN_AS_OURS = frozenset({"postmaster", "local-domains", "relay-domains"})


def senders(ours: str, literal: str) -> Iterator[str]:
    """What a stranger may say to look like one of us, or like nobody."""
    yield from ("<>", f"spammer@{ours}", f"spammer@{literal}", f"postmaster@{ours}", f"{VICTIM}@{ELSEWHERE}")
    yield from ("spammer@localhost", "spammer@sender.example", "spammer")


def recipients(ours: str, literal: str) -> Iterator[str]:
    """The ways to write a recipient elsewhere. `ours`: a domain of ours, `literal`: an address of ours in brackets."""
    v, e, at = VICTIM, ELSEWHERE, f"{VICTIM}@{ELSEWHERE}"
    yield at
    # percent
    yield from (f"{v}%{e}@{ours}", f"{v}%{e}@{literal}", f"{v}%{e}", f"{v}%{e}@localhost")
    # quoted
    yield from (f'"{at}"', f'"{v}%{e}"', f'"{at}"@{ours}', f'"{at}"@{literal}')
    # at signs
    yield from (f"{at}@{ours}", f"{v}@{ours}@{e}", f"{at}@{literal}")
    # source routes
    yield from (f"<@{ours}:{at}>", f"<@{literal}:{at}>", f"<@{ours},@{ours}:{at}>", f"<@localhost:{at}>")
    # bang
    yield from (f"{e}!{v}", f"{e}!{v}@{ours}", f"{e}!{v}@{literal}", f"{ours}!{e}!{v}")
    # brackets, names, comments
    yield from (f"<<{at}>>", f"Name <{at}>", f"<x@{ours}> <{at}>", f"x@{ours},{at}", f"{at}(@{ours})", f"{at}.")
    # octets that mean something else to somebody else
    yield from (f"{at}\t@{ours}", f"{at}\r@{ours}", f"{v}\uff20{e}", f"{v}@elsewhere\u3002example")
    # ourselves as the next hop
    yield from (f"{v}@{literal}", f"{v}@[127.0.0.1]", f"{v}@[IPv6:::1]")


def forms(ours: str, literal: str) -> Iterator[tuple[str, str]]:
    """Every sender with every recipient."""
    for sender in senders(ours, literal):
        for recipient in recipients(ours, literal):
            yield sender, recipient
