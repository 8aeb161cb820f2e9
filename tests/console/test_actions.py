"""From a key to a result: what is asked before an action, what is run, and what is told."""

import time

import pytest

from mailtui.console.dialogs import frame
from mailtui.console.dialogs.confirm import ConfirmDialog, asks
from mailtui.console.dialogs.menu import Menu
from mailtui.console.dialogs.operations import OperationsDialog, UndoDialog
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_preview, a_row, at


@pytest.mark.parametrize(
    ("verb", "count", "asked"),
    [
        ("queue.hold", 1, ""),
        ("queue.hold", 2, "Y"),
        ("queue.retry", 100, "Y"),
        ("queue.retry", 50_000, "Y"),
        ("queue.bounce", 1, "dest1.example"),
        ("queue.bounce", 2, "2"),
        ("queue.delete", 50_000, "50000"),
    ],
)
def test_what_is_asked_depends_on_the_number_and_the_danger(verb: str, count: int, asked: str) -> None:
    assert asks(a_preview(verb, count)) == asked


def test_what_touches_the_world_is_always_asked() -> None:
    assert asks({"danger": "world"}) == "Y"


async def test_one_recipient_is_acted_on_at_once(relay: FakeRelay, console: Opener) -> None:
    relay.count = 1
    async with console() as (app, pilot):
        worker = app.run_verb("queue.hold", ids=["01HZX3V7N8Q01.0"])
        answer = await worker.wait()
        assert answer is not None and answer["done"] == 1
        await until(pilot, lambda: "held 1 recipient; z undoes it" in shown(app))
    assert [body["query"] for _, body in relay.verbs(preview=True)] == ["id:01HZX3V7N8Q01.0"]


async def test_a_query_is_frozen_before_it_is_counted_and_the_set_is_given_back(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    relay.count = 50
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="from:spammer@x.example")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("Y")
        await until(pilot, lambda: "held 50 recipients" in shown(app))
        await until(pilot, lambda: any(method == "DELETE" for method, _, _ in relay.asked))
    (_, preview), (_, run) = relay.verbs(preview=True)[0], relay.verbs(preview=False)[0]
    assert preview["query"] == "from:spammer@x.example" and preview["keep"]
    assert run["query"] is None and [path for method, path, _ in relay.asked if method == "DELETE"] == [
        f"/v1/sets/{run['set']}"
    ]


async def test_the_dialog_shows_counts_effects_sample_and_the_command(relay: FakeRelay, console: Opener) -> None:
    for size in ((80, 24), (160, 48)):
        relay.count = 312
        async with console(size) as (app, pilot):
            app.run_verb("queue.bounce", query="from:spammer@x.example")
            await until(pilot, lambda app=app: isinstance(app.screen, ConfirmDialog))
            await until(pilot, lambda app=app: "Invoice 1" in shown(app))
            text = shown(app)
            assert "Bounce" in text and "312 recipients of 312 messages" in text and "oldest 4d04h" in text
            assert "312 DSNs go to their senders." in text and "z undoes it for 10m." in text
            assert "rcpt1@dest1.example" in text and "Invoice 5" in text and "and 307 more" in text
            assert "mailtui queue bounce 'from:spammer@x.example' --yes --expect 312" in text
            assert "reason" in text and "Cancel" in text
            await pilot.press("escape")
    assert relay.verbs(preview=False) == []


async def test_the_default_is_cancel(relay: FakeRelay, console: Opener, no_guard: None) -> None:
    async with console() as (app, pilot):
        for key in ("enter", "escape", "q"):
            app.run_verb("queue.hold", query="to:*")
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press(key)
            await until(pilot, lambda: "nothing was done" in shown(app))
            app.flash("")
        app.run_verb("queue.delete", query="to:*")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("enter")
        await until(pilot, lambda: "nothing was done" in shown(app))
    assert relay.verbs(preview=False) == []


async def test_a_key_that_was_on_its_way_confirms_nothing(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="to:*")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        dialog = app.screen
        assert isinstance(dialog, ConfirmDialog)
        dialog._opened = time.monotonic() + 60 - frame.DEAF  # as if it had opened just now, and time stood still
        await pilot.press("Y")
        assert app.screen is dialog and relay.verbs(preview=False) == []
        dialog._opened = time.monotonic() - frame.DEAF
        await pilot.press("Y")
        await until(pilot, lambda: "held 3 recipients" in shown(app))
    assert frame.DEAF == 0.4


async def test_a_bounce_is_confirmed_by_typing_its_count(relay: FakeRelay, console: Opener, no_guard: None) -> None:
    relay.count = 312
    async with console() as (app, pilot):
        app.run_verb("queue.bounce", query="from:spammer@x.example")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("Y", "enter")
        await until(pilot, lambda: "not 312: nothing is done" in shown(app))
        await pilot.press("backspace", "3", "1", "2", "tab", *"spam", "enter", "enter")
        await until(pilot, lambda: "bounced 312 recipients; z undoes it" in shown(app))
    ((verb, body),) = relay.verbs(preview=False)
    assert (verb, body["reason"]) == ("queue.bounce", "spam")


async def test_a_single_bounce_is_confirmed_by_typing_the_domain(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    relay.count = 1
    async with console() as (app, pilot):
        app.run_verb("queue.bounce", ids=["01HZX3V7N8Q01.0"])
        await until(pilot, lambda: "type dest1.example" in shown(app))
        await pilot.press(*"DEST1.example", "enter")
        await until(pilot, lambda: "bounced 1 recipient" in shown(app))


async def test_nothing_that_matches_is_told_with_what_was_left_out(relay: FakeRelay, console: Opener) -> None:
    relay.preview = lambda verb, body: a_preview(verb, 0, left_out=[{"why": "already held", "recipients": 7}])
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="to:*")
        await until(pilot, lambda: "nothing to do; 7 left out: already held" in shown(app))


async def test_a_wrong_query_says_so(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="bad:x")
        await until(pilot, lambda: "bad: no such term" in shown(app))


async def test_dispose_is_a_menu_whose_most_destructive_entry_is_last(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    async with console() as (app, pilot):
        app.dispose_menu(query="to:*")
        await until(pilot, lambda: isinstance(app.screen, Menu) and "silently" in shown(app))
        text = shown(app)
        assert text.index("bounce:") < text.index("delete:")
        await pilot.press("d")
        await until(pilot, lambda: "Delete: give up silently" in shown(app))
        await pilot.press(*"3", "enter")
        await until(pilot, lambda: "deleted 3 recipients" in shown(app))


async def test_hold_or_release_goes_by_the_states_and_asks_when_they_are_mixed(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    relay.count = 1
    async with console() as (app, pilot):
        app.hold_or_release(["deferred", "queued"], ids=["01HZX3V7N8Q01.0"])
        await until(pilot, lambda: len(relay.verbs(preview=False)) == 1)
        app.hold_or_release({"held"}, ids=["01HZX3V7N8Q01.0"])
        await until(pilot, lambda: len(relay.verbs(preview=False)) == 2)
        app.hold_or_release({"held", "deferred"}, ids=["01HZX3V7N8Q01.0", "01HZX3V7N8Q02.0"])
        await until(pilot, lambda: "Hold or release" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: len(relay.verbs(preview=False)) == 3)
    assert [verb for verb, _ in relay.verbs(preview=False)] == ["queue.hold", "queue.release", "queue.release"]


async def test_try_in_asks_for_how_long(relay: FakeRelay, console: Opener, no_guard: None) -> None:
    relay.count = 1
    async with console() as (app, pilot):
        app.defer_dialog(ids=["01HZX3V7N8Q01.0"])
        await until(pilot, lambda: "After how long?" in shown(app))
        await pilot.press(*"soon", "enter")
        await until(pilot, lambda: "for example 30m, 2h, 1d" in shown(app))
        await pilot.press("ctrl+u", *"2h", "enter")
        await until(pilot, lambda: len(relay.verbs(preview=False)) == 1)
    assert relay.verbs(preview=False)[0][1]["args"] == {"for": "2h"}


async def test_z_shows_the_own_last_operation_and_enter_undoes_it(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    async with console() as (app, pilot):
        await pilot.press("z")
        await until(pilot, lambda: "nothing of yours can be undone" in shown(app))
        relay.operations = [
            {
                "operation": "o1",
                "verb": "queue.delete",
                "command": "mailtui queue delete x",
                "who": "another",
                "at": at(-5),
                "asked": 9,
                "done": 9,
                "state": "done",
                "undo_until": at(500),
                "reason": "",
            }
        ]
        relay.count = 1
        await app.run_verb("queue.hold", ids=["01HZX3V7N8Q01.0"]).wait()
        await pilot.press("z")
        await until(pilot, lambda: isinstance(app.screen, UndoDialog))
        assert "hold  1  undo 9m" in shown(app) and "mailtui queue hold" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: "undone 3 recipients" in shown(app))
    assert [path for method, path, _ in relay.asked if path.endswith("/undo")] == ["/v1/operations/o2/undo"]


async def test_the_list_of_operations_undoes_those_of_others(relay: FakeRelay, console: Opener, no_guard: None) -> None:
    relay.operations = [
        {
            "operation": "o2",
            "verb": "queue.bounce",
            "command": "mailtui queue bounce y",
            "who": "bob",
            "at": at(-9000),
            "asked": 4,
            "done": 3,
            "state": "done",
            "undo_until": at(-1),
            "reason": "old",
        },
        {
            "operation": "o1",
            "verb": "queue.delete",
            "command": "mailtui queue delete x",
            "who": "anna",
            "at": at(-5),
            "asked": 9,
            "done": 9,
            "state": "done",
            "undo_until": at(500),
            "reason": "phish wave",
        },
    ]
    async with console() as (app, pilot):
        await pilot.press("comma")
        await until(pilot, lambda: isinstance(app.screen, OperationsDialog) and "anna" in shown(app))
        assert '3 of 4  done  "old"' in shown(app) and '"phish wave"' in shown(app)
        await pilot.press("enter")  # its grace is over
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, UndoDialog))
        await pilot.press("enter")
        await until(pilot, lambda: any(path == "/v1/operations/o1/undo" for _, path, _ in relay.asked))


async def test_the_undo_clock_runs_in_the_tab_line(relay: FakeRelay, console: Opener) -> None:
    relay.count = 1
    async with console() as (app, pilot):
        await app.run_verb("queue.hold", ids=["01HZX3V7N8Q01.0"]).wait()
        await until(pilot, lambda: "z undo 9m" in shown(app).split("\n")[1])


async def test_every_number_of_the_answer_is_told(relay: FakeRelay, console: Opener) -> None:
    from mailtui.console.actions import result_text

    text = result_text(
        "queue.bounce",
        {
            "operation": "o1",
            "asked": 312,
            "done": 309,
            "delivered_before": 2,
            "pending": 1,
            "left_out": [{"why": "leaving", "recipients": 4}],
        },
        undo=True,
    )
    assert text == (
        "bounced 309 of 312 recipients; 2 delivered before; 1 in delivery, pending; 4 left out (leaving); z undoes it"
    )


async def test_try_now_and_suspend_act_on_the_destination_under_the_cursor(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "Try now" in shown(app))
        await pilot.press("Y")
        await until(pilot, lambda: "due now 3 recipients" in shown(app))
        await pilot.press("o")
        await until(pilot, lambda: "for how long?" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(relay.verbs(preview=True)) == 2)
    assert relay.verbs(preview=True)[0] == (
        "flush",
        {
            "query": None,
            "set": None,
            "expect": None,
            "args": {"destination": "dest1.example"},
            "preview": True,
            "reason": "",
            "keep": True,
        },
    )
    assert relay.verbs(preview=True)[1][1]["args"] == {"name": "dest1.example", "for": "1h"}


async def test_a_verb_without_a_query_acts_on_the_row_under_the_cursor(
    relay: FakeRelay, console: Opener, no_guard: None
) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("colon", *"hold --reason wave", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog) and "wave" in shown(app))
        await pilot.press("Y")
        await until(pilot, lambda: "held 3 recipients" in shown(app))
    assert [body["query"] for _, body in relay.verbs(preview=True)] == ["dest:dest1.example"]
    assert relay.verbs(preview=False)[0][1]["reason"] == "wave"


async def test_commands_complete_and_are_remembered(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await pilot.press("colon", *"flu", "tab", *"nowhere", "enter")
        await until(pilot, lambda: len(relay.verbs(preview=True)) == 1)
        await pilot.press("escape", "colon", "up")
        await until(pilot, lambda: "flush nowhere" in shown(app))
        await pilot.press("escape", "colon", *"fry me", "enter")
        await until(pilot, lambda: "fry: no such command" in shown(app))
    assert relay.verbs(preview=True)[0][1]["args"] == {"destination": "nowhere"}


async def test_a_long_list_of_ids_does_not_push_the_choice_out_of_the_dialog(relay: FakeRelay, console: Opener) -> None:
    ids = ",".join(f"01HZX3V7N8Q{n:02d}" for n in range(99))
    relay.preview = lambda verb, body: a_preview(
        verb,
        99,
        command=f"mailtui queue hold id:{ids} --yes",
        sample=[a_row(n, subject="x" * 10_000) for n in range(9)],
        effects=["A sentence that is long enough to take several lines of the dialog, and then some more. " * 2],
    )
    async with console() as (app, pilot):
        app.run_verb("queue.hold", query="to:*")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog) and "99 recipients" in shown(app))
        assert "Cancel" in shown(app) and "does it" in shown(app)
