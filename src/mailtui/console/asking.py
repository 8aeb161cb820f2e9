"""The half of the frame that asks the operator and the relay: verbs from preview to result, menus, operations.

`run_verb` takes an action from preview to result; the menus (`dispose_menu`, `defer_dialog`, `hold_or_release`,
`suspend_dialog`, `sort_menu`, `copy_menu`, `export_dialog`) ask and do what was chosen; `flash` says something. A
selection is exactly one of `set` (the id of a frozen set), `query`, `ids` (ids or rids, taken when the key was
pressed). Promises: an action that cannot be run says why; two questions never lie on each other.
"""

import os
import pwd
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from textual.app import App
from textual.worker import Worker

from mailtui.console import actions, copying, menus
from mailtui.console.copying import Copy
from mailtui.console.dialogs.frame import Dialog
from mailtui.console.export import Scope
from mailtui.console.glyphs import Glyphs, choose
from mailtui.console.link import Link, Snapshot
from mailtui.console.place import Place
from mailtui.console.terminal import Meter
from mailtui.console.widgets.frame import BottomLine
from mailtui.control.clean import clean
from mailtui.control.errors import VerbError

Answer = TypeVar("Answer")

# Operations asked for.
OPERATIONS = 50


class Asking(App[str]):
    """What `app.Console` is built on. Its result is what becomes of a relay that was started here."""

    def __init__(self, link: Link, *, read_only: str, ascii_only: bool, mouse: bool) -> None:
        super().__init__(driver_class=Meter, watch_css=False)
        self.link = link
        self.read_only = read_only
        self.glyphs: Glyphs = choose(ascii_only)
        self.snapshot: Snapshot | None = None  # the last one that was taken
        self.operations: list[dict[str, Any]] = []
        self.busy = ""  # what the own action is called that runs
        self.mouse_taken = mouse  # else it is the terminal's
        self._asking = False
        self._asked = float("-inf")  # when operations were, monotonic
        self._own: list[str] = []
        self._user = _user()

    # -- verbs -------------------------------------------------------------------------------------------------------

    def refusal(self) -> str:
        """Why no verb can be run now; "" if one can."""
        return f"read-only: {self.read_only}" if self.read_only else self.silence()

    def silence(self) -> str:
        """Why the relay cannot be asked now; "" if it can."""
        if self.link.live:
            return ""
        return f"not now: {self.snapshot.problem if self.snapshot else 'not connected yet'}"

    def run_verb(
        self,
        verb: str,
        *,
        set: str | None = None,
        query: str | None = None,
        ids: Sequence[str] | None = None,
        args: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> Worker[dict[str, Any] | None]:
        """See the module's docstring."""
        work = actions.act(self, verb, set=set, query=query, ids=ids, args=args, reason=reason)
        return self.run_worker(work, group="verbs", exit_on_error=False)

    def begin(self, what: str) -> None:
        """An action runs."""
        self.busy = what
        self._asked = time.monotonic()

    def end(self) -> None:
        self.busy = ""

    def done(self, verb: str, answer: Mapping[str, Any], *, undo: bool) -> None:
        """An action is done: tell, and let everybody look again."""
        if answer.get("operation"):
            self._own.append(str(answer["operation"]))
        self.flash(actions.result_text(verb, answer, undo=undo))
        self.ask_operations()
        for place in self.places():
            place.acted(verb, answer)

    def places(self) -> Iterator[Place]:
        """All that want to know what was done."""
        return iter(())

    def flash(self, text: str, *, error: bool = False) -> None:
        """One line at the bottom of the screen."""
        said = clean(text)
        for screen in self.screen_stack:
            for line in screen.query(BottomLine):
                line.flash(said, error=error)

    # -- operations --------------------------------------------------------------------------------------------------

    def ask_operations(self) -> None:
        """Ask for operations, beside."""
        self._asked = time.monotonic()
        # Workers get functions, not coroutines: one that had no time to begin before the end would be complained of.
        self.run_worker(self.read_operations, group="operations", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    async def read_operations(self) -> None:
        """Operations, and the latency of a small request."""
        try:
            self.operations = await self.link.lines(f"/v1/operations?limit={OPERATIONS}")
            await self.link.call("GET", "/v1/status", timed=True)
        except VerbError:
            pass  # the link tells when it is lost; an older relay knows no operations

    def is_mine(self, operation: Mapping[str, Any]) -> bool:
        """True for an operation of this console, or of its user."""
        return str(operation.get("operation")) in self._own or operation.get("who") == self._user

    # -- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, dialog: Dialog[Answer]) -> Answer | None:
        """The answer to a dialog; None while another one waits, or is on its way: two never lie on each other."""
        if self._asking:
            return None
        self._asking = True
        try:
            return await self.push_screen_wait(dialog)
        finally:
            self._asking = False

    def dispose_menu(self, **selection: Any) -> None:
        """`x`: bounce or delete."""
        self.menu(lambda: menus.dispose(self, selection))

    def defer_dialog(self, **selection: Any) -> None:
        """`i`: try in ..."""
        self.menu(lambda: menus.defer(self, selection))

    def hold_or_release(self, states: Collection[str], **selection: Any) -> None:
        """`o`: by the states of what is chosen; a mixed set, or one that is not known, asks."""
        self.menu(lambda: menus.hold_or_release(self, states, selection))

    def suspend_dialog(self, name: str, suspended: bool) -> None:
        """`o` on a destination or next hop."""
        self.menu(lambda: menus.suspend(self, name, suspended))

    def menu(self, show: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Show a menu, if what it offers can be done now."""
        if problem := self.refusal():
            self.flash(problem, error=True)
        else:
            self.run_worker(show(), group="menu", exit_on_error=False)

    def sort_menu(self, current: str, reverse: bool, chosen: Callable[[str, bool], None]) -> None:
        """`s`; `chosen` gets the field and whether it is reversed."""
        self.run_worker(menus.sort(self, current, reverse, chosen), group="menu", exit_on_error=False)

    def copy_menu(self, copies: Sequence[Copy]) -> None:
        """`y`: take one of these away."""
        self.run_worker(copying.choose(self, copies), group="menu", exit_on_error=False)

    def export_dialog(self, scopes: Sequence[Scope]) -> None:
        """`e`: write one of these into files. It changes nothing, so a console that only reads may."""
        if problem := self.silence():
            self.flash(problem, error=True)
        else:
            self.run_worker(menus.export(self, scopes), group="menu", exit_on_error=False)

    # -- the terminal ------------------------------------------------------------------------------------------------

    def copy_to_clipboard(self, text: str) -> None:
        """What Textual's own keys copy goes the way that everything goes."""
        self.run_worker(copying.take(self, Copy("", "the selection", text)), group="copy", exit_on_error=False)

    def write_terminal(self, sequence: str) -> None:
        """A sequence of our own, between two frames."""
        if self._driver is not None:
            self._driver.write(sequence)
            self._driver.flush()

    def set_mouse(self, taken: bool) -> None:
        """Take the mouse, or leave it to the terminal, which then selects text with it."""
        if isinstance(self._driver, Meter):
            self._driver.set_mouse(taken)


def _user() -> str:
    """Who we are in the journal: the relay names its peers so."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
