"""The level that an attempt must reach: what the route or the default asks, raised where it has to be."""

import pytest

from mailtui.model import PlannedHost, TlsFacts, TlsPolicy
from mailtui.tls import policy


def planned(level: str = "", **options: object) -> PlannedHost:
    tls = TlsPolicy(level, "route", f"the route says tls={level}") if level else None
    return PlannedHost(10, "mx.test", ("192.0.2.1",), 25, tls=tls, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "verify", "dane-only"])
def test_a_level_of_the_route_beats_the_default(level: str) -> None:
    found = policy.level_for(planned(level), "verify")
    assert (found.level, found.source) == (level, "route")


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "verify"])
def test_the_default_is_that_of_the_configuration(level: str) -> None:
    found = policy.level_for(planned(), level)
    assert (found.level, found.source, found.why) == (level, "config", f"[tls] default {level}")


@pytest.mark.parametrize("level", ["dane", "mta-sts"])
def test_what_waits_for_published_policies_comes_to_may_and_says_so(level: str) -> None:
    found = policy.level_for(planned(level), "none")
    assert found.level == "may"
    assert f"tls={level}" in found.why
    assert "nothing that the domain publishes is looked up" in found.why


def test_auto_is_the_default_and_comes_to_may() -> None:
    found = policy.level_for(planned(), "auto")
    assert (found.level, found.source) == ("may", "default")
    assert "nothing that the domain publishes is looked up" in found.why


def test_only_dane_only_cannot_be_met_whatever_the_host_offers() -> None:
    assert policy.shortfall(policy.level_for(planned("verify"), "auto")) is None
    why = policy.shortfall(policy.level_for(planned("dane-only"), "auto"))
    assert why is not None
    assert "TLSA" in why


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "dane", "auto"])
def test_a_password_asks_for_a_verified_host(level: str) -> None:
    found = policy.level_for(planned(level, auth="ann"), "auto")
    assert (found.level, found.source) == ("verify", "auth")
    assert "auth=ann" in found.why


def test_on_loopback_a_password_asks_for_encryption_only() -> None:
    local = PlannedHost(10, "localhost", ("127.0.0.1", "::1"), 25, auth="ann")
    assert policy.level_for(local, "may").level == "encrypt"
    mixed = PlannedHost(10, "localhost", ("127.0.0.1", "192.0.2.1"), 25, auth="ann")
    assert policy.level_for(mixed, "may").level == "verify"
    nowhere = PlannedHost(10, "localhost", (), 25, auth="ann")
    assert policy.level_for(nowhere, "may").level == "verify"


def test_a_stricter_level_stays_where_a_password_is_sent() -> None:
    assert policy.level_for(planned("dane-only", auth="ann"), "auto").level == "dane-only"


@pytest.mark.parametrize("level", ["none", "may", "auto"])
def test_implicit_tls_is_never_less_than_encrypt(level: str) -> None:  # L10
    assert policy.level_for(planned(level, scheme="smtps"), "auto").level == "encrypt"
    assert policy.level_for(planned("verify", scheme="smtps"), "auto").level == "verify"


def test_a_password_may_leave_only_under_verified_tls_or_encrypted_on_loopback() -> None:
    def reached(what: str) -> TlsFacts:
        return TlsFacts(reached=what)

    assert policy.may_log_in(reached("verified"), "192.0.2.1")
    assert not policy.may_log_in(reached("encrypted"), "192.0.2.1")
    assert policy.may_log_in(reached("encrypted"), "127.0.0.9")
    assert policy.may_log_in(reached("encrypted"), "::1")
    assert not policy.may_log_in(reached("none"), "127.0.0.1")
    assert not policy.may_log_in(reached("encrypted"), "127.0.0.1.evil.test")


def test_a_session_serves_only_messages_of_the_same_level_and_names() -> None:
    one = TlsPolicy("verify", "route", "a", ("mx.test",))
    assert policy.same(one, TlsPolicy("verify", "config", "b", ("mx.test",)))
    assert not policy.same(one, TlsPolicy("verify", "route", "a", ("other.test",)))
    assert not policy.same(one, TlsPolicy("encrypt", "route", "a", ("mx.test",)))
    assert not policy.same(one, TlsPolicy("may", "route", "a", ("mx.test",)))
