"""What an action would touch: counted once, and dealt into chunks of what stands together in the indexes."""

import itertools
import random

import pytest

from mailtui.control.picture import DEALT, Picture
from mailtui.queue.chosen import Chosen


def chosen(message: int, destination: int, state: int = 1) -> Chosen:
    return Chosen(message, 1, state, 0, destination, 0, 0, 100, 1.0, 0, "")


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_chunks_are_all_that_is_touched_each_once(step: int) -> None:
    rng = random.Random(step)
    picture = Picture("bounce")
    for message in range(1, 2001):
        picture.add([chosen(message, rng.randrange(1, 3 * DEALT), rng.choice((1, 1, 1, 3)))])
    chunks = list(picture.chunks(step))
    assert all(len(chunk) == step for chunk in chunks[:-1])
    dealt = [rid for chunk in chunks for rid in chunk]
    assert len(dealt) == picture.recipients
    assert sorted(dealt) == sorted(rid for rids in picture.rids(100) for rid in rids)


def test_recipients_of_a_destination_stand_together_the_first_of_the_set_first() -> None:
    picture = Picture("hold")
    places = {message: 1 + message % 300 for message in range(1, 3001)}
    picture.add(chosen(message, place) for message, place in places.items())
    seen = [message for chunk in picture.chunks(25) for message, _ in chunk]
    where = [places[message] for message in seen]
    assert sum(a != b for a, b in itertools.pairwise(where)) == 299
    assert [message for message in seen if places[message] == 7] == list(range(6, 3001, 300))


def test_a_sample_is_the_beginning_of_the_set() -> None:
    picture = Picture("bounce")
    picture.add(chosen(message, 5000 - message) for message in range(1, 100))
    assert next(picture.rids(3)) == [(1, 1), (2, 1), (3, 1)]
