"""Frozen sets in the hands of clients: numbered, limited, and gone a while after nobody asks for them."""

from array import array

import pytest

from mailtui.clock import ManualClock
from mailtui.queue.freezing import FrozenSet
from mailtui.queue.sets import CLIENT_LIMIT, LIFE, LIMIT, LostSet, Sets, SetsFull


def frozen(number: int = 1) -> FrozenSet:
    return FrozenSet(messages=array("q", [number]), ordinals=array("i", [1]))


def test_sets_are_numbered_and_given_back() -> None:
    sets = Sets(ManualClock())
    first, second = frozen(1), frozen(2)
    assert (sets.create(10, first), sets.create(10, second)) == ("s1", "s2")
    assert sets.get("s1") is first
    assert sets.get("s2") is second


def test_a_set_lives_from_its_last_use() -> None:
    clock = ManualClock()
    sets = Sets(clock)
    used, unused = sets.create(10, frozen()), sets.create(10, frozen())
    clock.advance(LIFE - 1)
    sets.get(used)
    clock.advance(2)
    assert len(sets) == 1
    with pytest.raises(LostSet, match="'s2' is gone; ask again"):
        sets.get(unused)
    clock.advance(LIFE)
    with pytest.raises(LostSet):
        sets.get(used)
    assert len(sets) == 0


def test_a_dropped_set_is_lost_and_its_name_is_not_used_again() -> None:
    sets = Sets(ManualClock())
    name = sets.create(10, frozen())
    sets.drop(name)
    sets.drop(name)
    sets.drop("s99")
    assert sets.create(10, frozen()) == "s2"
    for lost in (name, "", "s0", "nonsense\x1b" * 9):
        with pytest.raises(LostSet) as caught:
            sets.get(lost)
        assert str(caught.value).isprintable()


def test_a_client_that_wants_too_many_loses_the_one_it_used_least_recently() -> None:
    sets = Sets(ManualClock())
    other = sets.create(11, frozen())
    names = [sets.create(10, frozen(i)) for i in range(CLIENT_LIMIT)]
    sets.get(names[0])
    last = sets.create(10, frozen())
    for name in (other, names[0], *names[2:], last):
        sets.get(name)
    with pytest.raises(LostSet):
        sets.get(names[1])


def test_all_clients_together_have_a_limit() -> None:
    clock = ManualClock()
    sets = Sets(clock)
    names = [sets.create(client, frozen()) for client in range(LIMIT // CLIENT_LIMIT) for _ in range(CLIENT_LIMIT)]
    with pytest.raises(SetsFull, match="try again in a minute"):
        sets.create(99, frozen())
    assert sets.create(0, frozen()) == f"s{LIMIT + 1}"  # in the place of one of its own
    sets.drop(names[-1])
    sets.create(99, frozen())
    clock.advance(LIFE)
    sets.create(100, frozen())
    assert len(sets) == 1
