"""Every key of the console, in one table: the footer, `?` and the bindings of the frame come from it.

A key that changes state is none of A-D F H O P-S Z `[` `~` or a digit: those are what is left of an arrow or function
key whose escape sequence a slow link tore apart. A destructive verb is never on a key of its own, nor on ctrl.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mailtui.control.verbs import VERBS


@dataclass(frozen=True, slots=True)
class Key:
    """A key in a scope. `weight` orders the footer, lowest first; `verb` is the registry's name of what it does, and
    explains it where `help` does not."""

    scope: str
    key: str
    label: str
    help: str
    weight: int = 50
    verb: str = ""


# Scopes in the order of the help; a pane names its own as SCOPE.
SCOPES = {
    "overview": "Overview",
    "queue": "Queue",
    "message": "Message",
    "move": "Move",
    "go": "Go",
    "all": "Everywhere",
}

KEYS: tuple[Key, ...] = (
    Key("overview", "Enter", "open", "open the queue of the destination under the cursor", 10),
    Key("overview", "r", "try now", "", 20, "flush"),
    Key("overview", "o", "suspend", "suspend the destination for a time, or resume it", 30, "dest.suspend"),
    Key("overview", "y", "copy", "copy the name, the last reply, a query, the row as JSON, the command line", 40),
    Key("queue", "Enter", "open", "open the message", 10),
    Key("queue", "w", "why", "why it is still here", 12),
    Key("queue", "r", "try now", "", 14, "queue.retry"),
    Key("queue", "i", "try in", "", 30, "queue.defer"),
    Key("queue", "o", "hold", "hold it, or release what is held", 16, "queue.hold"),
    Key("queue", "x", "dispose", "bounce or delete: a menu, then the count is typed", 18, "queue.bounce"),
    Key("queue", "/", "filter", "filter by a QUERY; Esc clears it", 20),
    Key("queue", "Space", "mark", "mark the row and go down; v marks a range", 22),
    Key("queue", "*", "all", "mark all that match; u unmarks", 24),
    Key("queue", "n N", "", "next and previous row that is marked", 60),
    Key("queue", "s", "sort", "sort by a column", 26),
    Key("queue", "f", "follow", "follow the row, or the newest", 62),
    Key(
        "queue", "y", "copy", "copy id, recipient, last reply, the row as JSON, the command line; of the marked too", 40
    ),
    Key("queue", "e", "export", "write rows or messages into files: JSON Lines, CSV, .eml", 42, "queue.export"),
    Key("queue", "Ctrl+R", "", "take the set again", 64),
    Key("message", "w", "why", "why it is still here", 10),
    Key("message", "t", "trace", "the hops that it took, with the delay of each", 12),
    Key("message", "a", "attempts", "the attempts, with their dialogue", 14),
    Key("message", "m", "headers", "its headers", 16),
    Key("message", "b", "body", "its body; B shows it raw", 18),
    Key("message", "L", "", "TLS of its attempts", 60),
    Key("message", "r", "try now", "", 20, "queue.retry"),
    Key("message", "i", "try in", "", 42, "queue.defer"),
    Key("message", "o", "hold", "hold or release it", 22, "queue.hold"),
    Key("message", "x", "dispose", "bounce or delete it", 24, "queue.bounce"),
    Key("message", "y", "copy", "copy id, recipient, reply, JSON, the command line, what the tab says", 44),
    Key("message", "e", "export", "write it into a file", 46, "queue.export"),
    Key("message", "J K", "next", "next and previous message", 26),
    Key("message", "Esc", "back", "back to the queue", 28),
    Key("move", "j k", "", "down and up; also the arrows"),
    Key("move", "g G", "", "first and last; also Home and End"),
    Key("move", "PgUp PgDn", "", "a page; also Ctrl+U and Ctrl+D"),
    Key("move", "h l", "", "scroll to the left and right"),
    Key("move", "Tab", "", "the next region; Shift+Tab the one before"),
    Key("move", "Esc", "", "one step back; never leaves the console"),
    Key("move", "q", "", "back; at the root twice leaves, and the relay goes on"),
    Key("go", "1 2", "", "overview, queue"),
    Key("go", ":", "command", "a command, as in the shell: flush, why, trace, hold QUERY ...", 70),
    Key("go", "Ctrl+P", "", "the same commands, found by a part of their name"),
    Key("go", "-", "", "the last view"),
    Key("go", ">2", "", "the queue of this row's destination"),
    Key("go", "!", "", "what needs you"),
    Key("all", "z", "undo", "undo your last operation; Enter confirms", 72),
    Key("all", ",", "operations", "operations of everybody, pending and recent", 80),
    Key("all", "p", "pause", "let the screen stand still; what is missed is counted", 76),
    Key("all", "M", "", "the mouse, on or off (off: the terminal selects text)"),
    Key("all", "Ctrl+L", "", "draw the screen again"),
    Key("all", "?", "keys", "this help", 0),
)


def of_scope(scope: str) -> list[Key]:
    """The keys of a scope, as the footer orders them."""
    return sorted((key for key in KEYS if key.scope == scope), key=lambda key: key.weight)


def footer(scope: str, width: int) -> list[tuple[str, str]]:
    """(key, label) of what fits into `width` cells, the most useful first; `?` is always last and always there."""
    last = ("?", "keys")
    left = width - len("  ".join(last)) - 1
    chosen: list[tuple[str, str]] = []
    scopes = dict.fromkeys((scope, "go", "all"))
    for key in (key for name in scopes for key in of_scope(name)):
        cost = len(key.key) + len(key.label) + 3
        if key.label and key.key != "?" and cost <= left:
            chosen.append((key.key, key.label))
            left -= cost
    return [*chosen, last]


def lines(scopes: Iterable[str]) -> list[tuple[str, str]]:
    """(key, help) of the scopes for `?`; a heading has the text "" as its help."""
    found: list[tuple[str, str]] = []
    for scope in scopes:
        found.append((SCOPES[scope], ""))
        found += [(key.key, key.help or VERBS[key.verb].help) for key in KEYS if key.scope == scope]
    return found
