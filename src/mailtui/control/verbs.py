"""Every action of an operator, once: its name, its words, its arguments, what it risks, how it is told, its key.

The command line, the control socket and the console come from this table, so that what can be done by key can be done
by command, and the reverse; `words.py` has what turns words into an action, and an action into words. Promises: data
only, and nothing heavy to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# What an action risks: nothing; an undo takes it back; mail is lost when its grace is over; it stops the world.
NONE, UNDOABLE, LOSSY, WORLD = "none", "undoable", "lossy", "world"

# Whether a verb selects recipients.
NO_QUERY, NEEDS_QUERY, MAY_QUERY = "", "needed", "optional"


@dataclass(frozen=True, slots=True)
class Arg:
    """An argument besides QUERY. `kind`: text | duration | number | rate | choice | flag | secret. An `operand` stands
    by itself, all others are options. A secret is in no command line: the command asks for it."""

    name: str
    help: str
    kind: str = "text"
    metavar: str = ""
    required: bool = False
    operand: bool = False
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """As on the command line: --all-at-once."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Verb:
    """An action. `preview` says what it will do, `done` what was done to the recipients; `key` is the console's, in
    its `scope`."""

    name: str
    title: str
    help: str
    example: str
    preview: str
    done: str
    query: str = NO_QUERY
    args: tuple[Arg, ...] = ()
    danger: str = NONE
    key: str = ""
    scope: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of its command, after `mailtui`."""
        return tuple(self.name.split("."))

    @property
    def action(self) -> str:
        """What it does to recipients, as the store calls it."""
        return "retry" if self.name == "flush" else self.words[-1]


_FOR = Arg("for", "How long, such as 30m, 2h or 1d.", "duration", "DURATION")
_NOW = Arg("now", "Skip the grace: it cannot be undone then.", "flag")
_AT_ONCE = Arg("all_at_once", "Everything at once, without a canary and waves.", "flag")
_NAME = Arg("name", "A destination or a next hop.", metavar="NAME", required=True, operand=True)
_USER = Arg("name", "The account.", metavar="NAME", required=True, operand=True)
_VERIFIER = Arg("verifier", "SCRAM-SHA-256 verifier of the password.", "secret", "VERIFIER", required=True)
_MATCH = Arg("match", "For whom.", metavar="MATCH", required=True, operand=True)

_TABLE = (
    Verb(
        "queue.retry",
        "Try now",
        "Try now what matches: one canary per next hop first, then growing waves.",
        "mailtui queue retry dest:example.com --yes",
        "One canary per next hop goes first, then waves of 2, 4, 8 ...; a next hop that refuses stops them. "
        "Attempt counts and expiry are kept.",
        "due now",
        NEEDS_QUERY,
        (_AT_ONCE,),
        key="r",
        scope="queue",
    ),
    Verb(
        "queue.hold",
        "Hold",
        "Hold what matches until it is released.",
        "mailtui queue hold from:news@example.com --reason 'is this spam?'",
        "They wait until they are released; their clocks are kept.",
        "held",
        NEEDS_QUERY,
        danger=UNDOABLE,
        key="o",
        scope="queue",
    ),
    Verb(
        "queue.release",
        "Release",
        "Release what is held: state and clock as before the hold.",
        "mailtui queue release from:news@example.com --yes",
        "State and clock become what they were before the hold.",
        "released",
        NEEDS_QUERY,
        key="o",
        scope="queue",
    ),
    Verb(
        "queue.defer",
        "Try later",
        "Try what matches after a time.",
        "mailtui queue defer dest:example.com --for 2h --yes",
        "Their next attempt is then; attempt counts and expiry are kept.",
        "deferred",
        NEEDS_QUERY,
        (Arg("for", "When to try next: after 30m, 2h, 1d.", "duration", "DURATION", required=True),),
        UNDOABLE,
        "i",
        "queue",
    ),
    Verb(
        "queue.bounce",
        "Bounce: give up and tell the sender",
        "Give up what matches and tell the sender, at the end of the grace.",
        "mailtui queue bounce 'from:spammer@example.com age>1h' --yes --expect 312",
        "They leave the queue, and their senders are told, at the end of the grace.",
        "bounced",
        NEEDS_QUERY,
        (_NOW,),
        LOSSY,
        "x b",
        "queue",
    ),
    Verb(
        "queue.delete",
        "Delete: give up silently",
        "Give up what matches silently, at the end of the grace.",
        "mailtui queue delete from:spammer@example.com --yes --expect 312",
        "They leave the queue at the end of the grace, and nobody is told.",
        "deleted",
        NEEDS_QUERY,
        (_NOW,),
        LOSSY,
        "x d",
        "queue",
    ),
    Verb(
        "queue.reroute",
        "Reroute",
        "Send what matches another way.",
        "mailtui queue reroute dest:example.com --to 'smtp://[192.0.2.7]:25' --yes",
        "From their next attempt on they go there, whatever the route table says.",
        "rerouted",
        NEEDS_QUERY,
        (Arg("to", "A ROUTE target; '' gives the route table its say again.", metavar="ROUTE", required=True),),
        UNDOABLE,
    ),
    Verb(
        "queue.restore",
        "Restore",
        "Undo bounce or delete within the grace; without a QUERY, of everything that is leaving.",
        "mailtui queue restore from:boss@example.com --yes",
        "State and clock become what they were before.",
        "restored",
        MAY_QUERY,
        key="z",
        scope="all",
    ),
    Verb(
        "queue.undo",
        "Undo",
        "Take an operation back, where its recipients are still as it left them.",
        "mailtui queue undo o12",
        "Its recipients become what they were before it; what was changed since stays.",
        "undone",
        args=(Arg("operation", "Its name, as in the journal.", metavar="OPERATION", required=True, operand=True),),
        key="z",
        scope="all",
    ),
    Verb(
        "queue.export",
        "Export",
        "Write the messages that match into a directory: .eml files, with an envelope .json beside each.",
        "mailtui queue export dest:example.com ./mail",
        "Nothing changes in the queue.",
        "exported",
        NEEDS_QUERY,
        (Arg("directory", "Where to write.", metavar="DIR", required=True, operand=True),),
        key="e",
        scope="queue",
    ),
    Verb(
        "flush",
        "Try now",
        "Try now what waits for a destination, or everything.",
        "mailtui flush example.com",
        "One canary per next hop goes first, then waves of 2, 4, 8 ...; a next hop that refuses stops them. "
        "Attempt counts and expiry are kept.",
        "due now",
        args=(Arg("destination", "Without it everything.", metavar="[DOMAIN]", operand=True), _AT_ONCE),
        key="r",
        scope="overview",
    ),
    Verb(
        "pause",
        "Pause",
        "Stop the world: delivery, intake, or all.",
        "mailtui pause delivery --for 1h --reason 'the DNS is broken'",
        "No mail is lost, and no state changes.",
        "paused",
        args=(
            Arg("what", "delivery, intake or all.", "choice", "WHAT", True, True, ("delivery", "intake", "all")),
            _FOR,
        ),
        danger=WORLD,
    ),
    Verb(
        "resume",
        "Resume",
        "Go on after a pause, in waves.",
        "mailtui resume",
        "Delivery starts again with one connection a next hop; intake takes mail again.",
        "resumed",
    ),
    Verb(
        "dest.suspend",
        "Suspend",
        "Send nothing to a destination or next hop for a time, or until it is resumed.",
        "mailtui dest suspend example.com --for 1h --reason 'their MX is down'",
        "What is on a connection now ends; all else waits. No state changes.",
        "suspended",
        args=(_NAME, _FOR),
        danger=UNDOABLE,
        key="o",
        scope="overview",
    ),
    Verb(
        "dest.resume",
        "Resume",
        "Send to a suspended destination or next hop again.",
        "mailtui dest resume example.com",
        "What is due for it goes at once, within its window.",
        "resumed",
        args=(_NAME,),
        key="o",
        scope="overview",
    ),
    Verb(
        "dest.limit",
        "Limit",
        "Limit the connections or the messages a time to a destination or next hop.",
        "mailtui dest limit example.com --concurrency 2 --rate 100/1m",
        "It holds until it is cleared, also after a restart.",
        "limited",
        args=(
            _NAME,
            Arg("concurrency", "At most N connections.", "number", "N"),
            Arg("rate", "At most so many messages, such as 100/1m.", "rate", "RATE"),
            Arg("clear", "Back to the configuration.", "flag"),
        ),
        danger=UNDOABLE,
    ),
    Verb(
        "route.set",
        "Route",
        "Send the mail of MATCH to TARGET. A live row beats one of the file.",
        "mailtui route set example.com 'smtp://[mailbox.internal]:25' tls=encrypt",
        "It holds from the next attempt on, also after a restart.",
        "set",
        args=(
            _MATCH,
            Arg("target", "Where to.", metavar="TARGET", required=True, operand=True),
            Arg("auth", "A user of the secrets file."),
            Arg("tls", "A TLS level."),
            Arg("source", "The address to connect from."),
        ),
        danger=UNDOABLE,
    ),
    Verb(
        "route.unset",
        "Remove a route",
        "Remove the live row of MATCH; one of the file holds again.",
        "mailtui route unset example.com",
        "A row of the file holds again; without one, mail goes to its MX.",
        "removed",
        args=(_MATCH,),
        danger=UNDOABLE,
    ),
    Verb(
        "user.add",
        "Add an account",
        "Add an account for SMTP AUTH.",
        "mailtui user add ann",
        "Whoever knows the password may relay from then on.",
        "added",
        args=(_USER, _VERIFIER),
    ),
    Verb(
        "user.remove",
        "Remove an account",
        "Remove an account, and close its sessions.",
        "mailtui user remove ann",
        "It cannot log in any more, its sessions are closed. What is queued stays as it is.",
        "removed",
        args=(_USER,),
    ),
    Verb(
        "user.passwd",
        "Change a password",
        "Change the password of an account.",
        "mailtui user passwd ann",
        "The new one holds from the next login on.",
        "changed",
        args=(_USER, _VERIFIER),
    ),
    Verb(
        "user.quarantine",
        "Quarantine an account",
        "Hold all queued mail of an account, close its sessions, and refuse new ones.",
        "mailtui user quarantine ann --reason 'sends spam since noon'",
        "Its queued mail is held, its sessions are closed and its logins are refused until user release.",
        "quarantined",
        args=(_USER,),
        danger=UNDOABLE,
    ),
    Verb(
        "user.release",
        "Release an account",
        "End the quarantine of an account: it may log in, and what the quarantine held is released.",
        "mailtui user release ann",
        "It may log in again; what its quarantine holds gets state and clock as before.",
        "released",
        args=(_USER,),
    ),
    Verb(
        "access.grant",
        "Let an address relay",
        "Let an address relay for a while.",
        "mailtui access grant 203.0.113.9 --for 30m --reason 'logged in by POP'",
        "It may relay to anywhere until then, also after a restart; access revoke ends it at once.",
        "granted",
        args=(
            Arg("ip", "The client's address.", metavar="IP", required=True, operand=True),
            Arg("for", "How long, 30m if nothing is said; 7d at most.", "duration", "DURATION"),
        ),
        danger=UNDOABLE,
    ),
    Verb(
        "access.revoke",
        "Take a grant back",
        "Take the temporary permission of an address back.",
        "mailtui access revoke 203.0.113.9",
        "From the next message on it may relay only if something else permits it.",
        "revoked",
        args=(Arg("ip", "The client's address.", metavar="IP", required=True, operand=True),),
        danger=UNDOABLE,
    ),
    Verb(
        "access.probe.add",
        "Save a probe",
        "Save a question to the access rules whose answer must stay what it is.",
        "mailtui access probe add stranger --client 203.0.113.9 --from a@a.example --to b@b.example --expect reject",
        "A configuration that answers it otherwise is not taken over by a reload.",
        "saved",
        args=(
            Arg("name", "Its name; a probe of that name is replaced.", metavar="NAME", required=True, operand=True),
            Arg("client", "Address of the client.", metavar="IP", required=True),
            Arg("from", "Sender; '<>' for the null path.", metavar="A", required=True),
            Arg("to", "Recipient.", metavar="B", required=True),
            Arg("user", "As whom the client is authenticated.", metavar="U"),
            Arg("cert", "Fingerprint of the client's certificate.", metavar="SHA256"),
            Arg("tls", "The session is encrypted.", "flag"),
            Arg("helo", "What the client says in EHLO.", metavar="H"),
            Arg("listener", "At which listener.", metavar="NAME"),
            Arg("expect", "accept, reject or defer.", "choice", "VERDICT", True, False, ("accept", "reject", "defer")),
            Arg("rule", "The rule that must decide; any if nothing is said.", metavar="R"),
        ),
        danger=UNDOABLE,
    ),
    Verb(
        "access.probe.remove",
        "Remove a probe",
        "Forget a saved probe.",
        "mailtui access probe remove stranger",
        "Reloads do not ask it any more.",
        "removed",
        args=(Arg("name", "Its name.", metavar="NAME", required=True, operand=True),),
        danger=UNDOABLE,
    ),
    Verb(
        "reload",
        "Reload",
        "Read the configuration again; a bad one is refused with its errors, and the old one stays.",
        "mailtui reload",
        "A bad configuration is refused with its errors, and the old one stays.",
        "reloaded",
    ),
    Verb(
        "stop",
        "Stop the relay",
        "Drain and stop the relay.",
        "mailtui stop",
        "What is on a connection may end; what is queued stays in the queue.",
        "stopping",
        danger=WORLD,
    ),
    Verb(
        "backup",
        "Backup",
        "Write a consistent copy while running: database, spool files, configuration.",
        "mailtui backup /var/backups/mailtui.tar",
        "Nothing changes in the queue.",
        "written",
        args=(Arg("file", "The tar to write.", metavar="FILE", operand=True),),
    ),
)

VERBS: Mapping[str, Verb] = {verb.name: verb for verb in _TABLE}
