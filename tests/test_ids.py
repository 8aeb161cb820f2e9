"""Queue ids grow, whatever the clock does, and survive being written down by people."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailtui import ids

numbers = st.integers(0, 2**63 - 1)


@given(numbers)
def test_an_id_is_13_characters_that_mean_its_number(number: int) -> None:
    text = ids.encode(number)
    assert len(text) == 13
    assert ids.decode(text) == ids.decode(text.lower()) == number


@given(numbers, numbers)
def test_ids_sort_as_text_as_they_sort_as_numbers(a: int, b: int) -> None:
    assert (ids.encode(a) < ids.encode(b)) == (a < b)


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=50), numbers.map(lambda n: n >> 1))
def test_ids_grow_whatever_the_clock_does(moments: list[float], last: int) -> None:
    source = ids.IdSource(last)
    issued = [last, *(source.next(now) for now in moments)]
    assert all(a < b for a, b in itertools.pairwise(issued))


def test_an_id_carries_its_time_of_arrival_in_milliseconds() -> None:
    assert ids.IdSource().next(1_700_000_000.123) >> 21 == 1_700_000_000_123


def test_many_ids_fit_into_one_moment() -> None:
    source = ids.IdSource()
    issued = [source.next(1_700_000_000.0) for _ in range(5000)]
    assert len(set(issued)) == 5000
    assert issued[-1] >> 21 == 1_700_000_000_000


def test_the_known_form() -> None:
    assert ids.encode(0) == "0000000000000"
    assert ids.encode(31) == "000000000000Z"
    assert ids.encode(2**63 - 1) == "7ZZZZZZZZZZZZ"


@pytest.mark.parametrize(
    ("typed", "meant"), [("OOOOOOOOOOOOO", 0), ("000000000000o", 0), ("000000000000l", 1), ("000000000000I", 1)]
)
def test_letters_that_people_confuse_with_digits_are_read_as_these(typed: str, meant: int) -> None:
    assert ids.decode(typed) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "00000000000000",
        "000000000000U",
        "000000000000-",
        "8000000000000",
        "ZZZZZZZZZZZZZ",
        "000000000000\u0661",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a queue id"):
        ids.decode(text)
    with pytest.raises(ValueError, match="not a queue id"):
        ids.parse(text)


@given(numbers, st.integers(0, 999_999))
def test_a_rid_names_a_message_and_a_recipient(number: int, ordinal: int) -> None:
    assert ids.parse(ids.rid(number, ordinal)) == (number, ordinal)
    assert ids.parse(ids.encode(number)) == (number, None)


@pytest.mark.parametrize("tail", [".", ".x", ".1.2", ".1234567", "-1", ".-1", " .1", ".1\n", ".\u0661"])
def test_what_is_no_rid_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match="not a queue id"):
        ids.parse(ids.encode(1) + tail)


@given(st.text(max_size=20))
def test_nothing_else_than_a_value_error(text: str) -> None:
    try:
        number, _ = ids.parse(text)
    except ValueError:
        return
    assert 0 <= number < 2**63
