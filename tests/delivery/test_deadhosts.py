"""Hosts that gave no session lately are tried last."""

from mailtui.delivery.deadhosts import DEAD_FIRST, DEAD_LAST, MAX_DEAD, PROBE, DeadHosts
from mailtui.model import PlannedHost

NOW = 5000.0
ONE = PlannedHost(10, "one.test", ("192.0.2.1",), 25)
TWO = PlannedHost(20, "two.test", ("192.0.2.2",), 25)
BOTH = PlannedHost(10, "both.test", ("2001:db8::3", "192.0.2.3"), 25)


def names(dead: DeadHosts, now: float, *hosts: PlannedHost) -> list[tuple[str, ...]]:
    return [(host.name, *host.addresses) for host in dead.last(hosts, now)]


def test_with_nothing_remembered_the_order_is_the_plans() -> None:
    hosts = [ONE, TWO]
    assert DeadHosts().last(hosts, NOW) is hosts


def test_a_dead_host_is_tried_last_for_a_while() -> None:
    dead = DeadHosts()
    dead.failed("192.0.2.1", 25, NOW)
    assert [host.name for host in dead.last([ONE, TWO], NOW + DEAD_FIRST - 1)] == ["two.test", "one.test"]
    assert [host.name for host in dead.last([ONE, TWO], NOW + DEAD_FIRST)] == ["one.test", "two.test"]


def test_its_turn_comes_with_one_attempt() -> None:
    dead = DeadHosts()
    dead.failed("192.0.2.1", 25, NOW)
    then = NOW + DEAD_FIRST
    firsts = [dead.last([ONE, TWO], then)[0].name for _ in range(20)]
    assert firsts == ["one.test"] + ["two.test"] * 19
    assert dead.last([ONE, TWO], then + PROBE)[0].name == "one.test"


def test_one_that_answers_is_forgotten() -> None:
    dead = DeadHosts()
    dead.failed("192.0.2.1", 25, NOW)
    dead.answered("192.0.2.1", 25)
    assert not dead
    dead.answered("192.0.2.99", 25)


def test_one_that_stays_dead_is_tried_ever_more_rarely() -> None:
    dead, now, waits = DeadHosts(), NOW, []
    for _ in range(8):
        dead.failed("192.0.2.1", 25, now)
        wait = 0.0
        while dead.last([ONE, TWO], now + wait)[0] is not ONE:
            wait += 10
        waits.append(wait)
        now += wait
    assert waits == [60, 120, 240, 480, *[DEAD_LAST] * 4]


def test_long_after_a_failure_the_next_one_is_news() -> None:
    dead = DeadHosts()
    for number in range(5):
        dead.failed("192.0.2.1", 25, NOW + number)
    later = NOW + 10 * DEAD_LAST
    dead.failed("192.0.2.1", 25, later)
    assert dead.last([ONE, TWO], later + DEAD_FIRST)[0] is ONE


def test_where_all_are_dead_the_order_is_the_plans() -> None:
    dead = DeadHosts()
    for address in ("192.0.2.2", "192.0.2.1"):
        dead.failed(address, 25, NOW)
    assert list(dead.last([ONE, TWO], NOW)) == [ONE, TWO]


def test_of_a_host_with_a_dead_address_the_other_one_is_tried_first() -> None:
    # D08: IPv6 that does not work here
    dead = DeadHosts()
    dead.failed("2001:db8::3", 25, NOW)
    assert names(dead, NOW, BOTH, TWO) == [
        ("both.test", "192.0.2.3"),
        ("two.test", "192.0.2.2"),
        ("both.test", "2001:db8::3"),
    ]


def test_another_port_is_another_host() -> None:
    dead = DeadHosts()
    dead.failed("192.0.2.1", 587, NOW)
    assert dead.last([ONE, TWO], NOW)[0] is ONE


def test_a_host_without_addresses_keeps_its_place() -> None:
    dead = DeadHosts()
    dead.failed("192.0.2.2", 25, NOW)
    unknown = PlannedHost(10, "gone.test", (), 25, "no such host")
    assert names(dead, NOW, unknown, TWO, ONE) == [("gone.test",), ("one.test", "192.0.2.1"), ("two.test", "192.0.2.2")]


def test_memory_is_bounded() -> None:
    dead = DeadHosts()
    for number in range(MAX_DEAD + 5):
        dead.failed(f"address{number}", 25, NOW + number)
    assert len(dead) == MAX_DEAD
    assert dead.last([PlannedHost(1, "x", ("address0",), 25), ONE], NOW)[0].name == "x"
