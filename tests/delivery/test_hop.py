"""A next hop's queue, window, back-off and rate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui.delivery.attempt import Work
from mailtui.delivery.hop import (
    AHEAD,
    BACKOFF_FIRST,
    BACKOFF_LAST,
    CEILING_FIRST,
    CEILING_LAST,
    FIRST_WINDOW,
    FairQueue,
    NextHop,
    Rate,
)
from mailtui.delivery.verdict import trouble
from mailtui.model import Envelope, Message, Plan, Recipient, State

NOW = 1_700_000_000.0
DOWN = trouble("connection refused", "4.4.1", "connection")
PLAN = Plan("dest.test", "site", "deliver", "mx")


def work(number: int, submitter: str, state: State = State.QUEUED) -> Work:
    message = Message(number, Envelope("a@sender.test", NOW), [], b"")
    return Work(message, [Recipient(1, "b@dest.test", "dest.test", submitter, state=state)], PLAN)


def order_of(queue: FairQueue) -> list[int]:
    return [each.message.id for each in queue.drain()]


def test_submitters_take_turns() -> None:
    queue = FairQueue()
    for number, submitter in enumerate("aaaabbc"):
        queue.push(work(number, submitter))
    assert order_of(queue) == [0, 4, 6, 1, 5, 2, 3]


def test_fresh_mail_goes_before_retried() -> None:
    queue = FairQueue()
    queue.push(work(1, "a", State.DEFERRED))
    queue.push(work(2, "a"))
    queue.push(work(3, "b", State.DEFERRED))
    queue.push(work(4, "a"))
    assert order_of(queue) == [2, 4, 1, 3]


def test_one_message_of_another_submitter_does_not_wait_for_a_newsletter() -> None:
    queue = FairQueue()
    for number in range(500):
        queue.push(work(number, "newsletter"))
    queue.push(work(999, "password reset"))
    assert 999 in [queue.pop().message.id for _ in range(2)]  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_nothing_is_lost_and_each_submitters_mail_stays_in_order(pushed: list[tuple[str, bool]]) -> None:
    queue = FairQueue()
    for number, (submitter, fresh) in enumerate(pushed):
        queue.push(work(number, submitter, State.QUEUED if fresh else State.DEFERRED))
    assert len(queue) == len(pushed)
    popped = order_of(queue)
    assert sorted(popped) == list(range(len(pushed)))
    for lane in {(submitter, fresh) for submitter, fresh in pushed}:
        mine = [number for number in popped if pushed[number] == lane]
        assert mine == sorted(mine)
    assert len(queue) == 0
    assert queue.pop() is None


def test_the_window_grows_with_success_up_to_the_limit() -> None:
    hop = NextHop("site", 20, None)
    assert hop.window == FIRST_WINDOW
    hop.workers = 5
    assert not hop.may_open()
    seen = [hop.window]
    for _ in range(200):
        hop.succeeded(NOW)
        seen.append(hop.window)
    assert seen == sorted(seen)
    assert hop.window == 20
    hop.workers = 19
    assert hop.may_open()
    hop.workers = 20
    assert not hop.may_open()


def test_a_limit_below_the_first_window_holds_from_the_start() -> None:
    hop = NextHop("site", 2, None)
    hop.workers = 2
    assert not hop.may_open()


def test_the_window_shrinks_with_each_session_that_the_hop_ends_down_to_one() -> None:
    hop = NextHop("site", 20, None)
    hop.strained()
    assert hop.window == FIRST_WINDOW - 1
    for _ in range(20):
        hop.strained()
    assert hop.window == 1
    assert hop.may_open()


def test_the_back_off_doubles_with_each_failed_probe() -> None:
    hop = NextHop("site", 20, None)
    now, waits = NOW, []
    for _ in range(12):
        hop.failed(now, DOWN)
        assert hop.backing_off(now)
        waits.append(hop.backoff_until - now)
        now = hop.backoff_until
        assert not hop.backing_off(now)
    assert waits[:6] == [BACKOFF_FIRST * 2**n for n in range(5)] + [BACKOFF_LAST]
    assert set(waits[5:]) == {BACKOFF_LAST}
    assert hop.failures == 12


def test_connections_that_fail_together_are_one_failure_of_the_hop() -> None:
    hop = NextHop("site", 20, None)
    for second in range(5):
        hop.failed(NOW + second, DOWN)
    assert hop.failures == 1
    assert hop.backoff_until == NOW + BACKOFF_FIRST
    assert hop.backoff_since == NOW


def test_after_a_back_off_one_message_probes() -> None:
    hop = NextHop("site", 20, None)
    hop.failed(NOW, DOWN)
    assert hop.room(NOW) == 0
    later = NOW + BACKOFF_FIRST
    assert hop.room(later) == 1
    assert hop.may_open()
    hop.claiming = 1
    assert hop.room(later) == 0
    hop.claiming, hop.workers, hop.busy[1] = 0, 1, work(1, "a")
    assert hop.room(later) == 0
    assert not hop.may_open()


def test_a_success_ends_the_back_off_and_the_window_grows_again() -> None:
    hop = NextHop("site", 20, None)
    hop.failed(NOW, DOWN)
    hop.succeeded(NOW + 1)
    assert (hop.failures, hop.last_failure) == (0, None)
    assert not hop.backing_off(NOW + 1)
    assert hop.window == 2
    assert hop.room(NOW + 1) == 2 * AHEAD


def test_room_is_the_window_times_what_is_claimed_ahead() -> None:
    hop = NextHop("site", 20, None)
    assert hop.room(NOW) == FIRST_WINDOW * AHEAD
    for number in range(30):
        hop.queue.push(work(number, "a"))
    assert hop.room(NOW) == 0


def test_a_rate_spreads_messages_and_lets_a_tenth_go_at_once() -> None:
    rate = Rate(100, 60.0)
    moments = [rate.reserve(1000.0) for _ in range(100)]
    assert moments == sorted(moments)
    assert sum(moment < 1000.001 for moment in moments) == 10
    assert moments[99] - 1000.0 == pytest.approx(90 * 0.6)
    # After a pause the burst is there again, and no more than the burst.
    assert sum(rate.reserve(2000.0) < 2000.001 for _ in range(50)) == 10


# -- the window: feedback that does not swing (standards R08) ----------------------------------------------------------


def grown(hop: NextHop, window: float, now: float = NOW) -> int:
    """Successes until the window is that large."""
    for count in range(10_000):
        if hop.window >= window:
            return count
        hop.succeeded(now)
    raise AssertionError(f"the window stays at {hop.window}")


def test_a_session_that_is_ended_costs_one_connection() -> None:
    hop = NextHop("site", 20, None)
    grown(hop, 10)
    hop.strained()
    assert int(hop.window) == 9
    for _ in range(50):
        hop.strained()
    assert hop.window == 1


def test_after_a_shrink_a_whole_window_succeeds_before_there_is_more() -> None:
    hop = NextHop("site", 20, None)
    grown(hop, 10)
    hop.strained()
    window = hop.window
    for _ in range(9):
        hop.succeeded(NOW)
        assert hop.window == window
    hop.succeeded(NOW)
    assert hop.window > window


def test_a_hop_that_ends_every_tenth_session_is_neither_stopped_nor_pushed() -> None:
    hop = NextHop("site", 20, None)
    seen = []
    for number in range(2000):
        if number % 10 == 9:
            hop.strained()
        else:
            hop.succeeded(NOW)
        seen.append(hop.window)
    assert max(seen[500:]) - min(seen[500:]) <= 2
    assert 2 <= min(seen[500:]) <= 10


def test_a_connection_refused_beside_others_that_work_tells_the_limit() -> None:
    hop = NextHop("site", 20, None)
    hop.workers = 4
    hop.refused(NOW)
    assert hop.window == 3
    for _ in range(1000):
        hop.succeeded(NOW + CEILING_FIRST - 1)
    assert hop.window == 3
    assert not hop.failures
    assert grown(hop, 4, NOW + CEILING_FIRST) <= 10


def test_a_limit_that_is_told_again_is_tried_ever_more_rarely() -> None:
    hop, now, refusals = NextHop("site", 20, None), NOW, []
    for _ in range(24 * 3600 // 10):  # a day, a success every ten seconds
        now += 10
        hop.succeeded(now)
        if hop.window > 3.99:
            hop.workers = 4
            hop.refused(now)
            refusals.append(now)
    waits = [later - sooner for sooner, later in pairwise(refusals)]
    assert 24 <= len(refusals) <= 30
    assert waits[0] < 2 * CEILING_FIRST
    assert CEILING_LAST <= waits[-1] <= CEILING_LAST + 100


def test_a_higher_limit_is_a_new_one() -> None:
    hop = NextHop("site", 20, None)
    hop.workers = 4
    hop.refused(NOW)
    hop.refused(NOW)
    later = NOW + 2 * CEILING_FIRST
    grown(hop, 9, later)
    hop.workers = 9
    hop.refused(later)
    assert hop.window == 8
    assert grown(hop, 9, later + CEILING_FIRST)


def test_a_hop_is_slow_when_its_messages_are() -> None:
    hop = NextHop("site", 20, None)
    hop.took(0.5)
    assert hop.slowness(NOW) == ""
    hop.busy[1] = work(1, "a")
    hop.busy[1].begun = NOW - 45
    assert hop.slowness(NOW) == "a message has been on a connection for 45 s"
    hop.busy.clear()
    for _ in range(50):
        hop.took(40.0)
    assert hop.slowness(NOW) == "a message takes 40 s"
