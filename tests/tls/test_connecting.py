"""TLS towards next hops: which certificate belongs to a host (RFC 6125 section 6.4), and the contexts."""

import ssl
from pathlib import Path

import pytest

from mailtui.tls.connecting import Contexts, misnamed, said
from tests.support.certificates import authority


def certificate(*names: str, addresses: tuple[str, ...] = (), common: str = "") -> dict[str, object]:
    """As `getpeercert` gives it."""
    made: dict[str, object] = {"subject": ((("organizationName", "x"),), (("commonName", common),))}
    if names or addresses:
        made["subjectAltName"] = (*(("DNS", n) for n in names), *(("IP Address", a) for a in addresses))
    return made


@pytest.mark.parametrize(
    ("names", "wanted", "fits"),
    [
        (["mx.example.com"], "mx.example.com", True),
        (["MX.Example.COM"], "mx.example.com.", True),
        (["a.test", "mx.example.com"], "mx.example.com", True),
        (["example.com"], "mx.example.com", False),
        (["*.example.com"], "mx.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.mx.example.com", False),
        (["*.com"], "example.com", False),
        (["*"], "com", False),
        (["m*.example.com"], "mx.example.com", False),
        (["*x.example.com"], "mx.example.com", False),
        (["mx.*.com"], "mx.example.com", False),
        (["*.*.com"], "mx.example.com", False),
        (["mx.example.com.evil.test"], "mx.example.com", False),
        (["mx.example.com\0.evil.test"], "mx.example.com", False),
    ],
)
def test_a_wildcard_is_the_whole_left_label_and_nothing_else(names: list[str], wanted: str, fits: bool) -> None:  # L12
    assert (misnamed(certificate(*names), [wanted]) is None) is fits


def test_the_common_name_counts_only_without_any_alternative_name() -> None:  # L12
    assert misnamed(certificate(common="mx.test"), ["mx.test"]) is None
    assert misnamed(certificate("other.test", common="mx.test"), ["mx.test"]) is not None
    assert misnamed(certificate(addresses=("192.0.2.1",), common="mx.test"), ["mx.test"]) is not None


def test_an_address_needs_an_address_or_a_name_of_the_policy() -> None:
    given = certificate("192.0.2.1", "mx.test", addresses=("192.0.2.7", "2001:DB8:0:0:0:0:0:1"))
    assert misnamed(given, ["192.0.2.7"]) is None
    assert misnamed(given, ["2001:db8::1"]) is None
    assert misnamed(given, ["192.0.2.1"]) is not None  # a DNS name that looks like an address is none
    assert misnamed(given, ["192.0.2.9", "mx.test"]) is None
    assert misnamed(certificate(common="192.0.2.1"), ["192.0.2.1"]) is not None


def test_one_of_several_names_is_enough() -> None:
    assert misnamed(certificate("mx.provider.test"), ["mx.test", "mx.provider.test"]) is None


def test_the_sentence_names_both_sides_and_is_clean() -> None:
    why = misnamed(certificate("a.test", "b\x1b[31m.test", *(f"{n}.test" for n in range(100))), ["mx.test"])
    assert why is not None
    assert why.startswith("the certificate is for a.test, b\\x1b[31m.test, 0.test")
    assert why.endswith(", ... and not for mx.test")
    assert len(why) < 300
    assert misnamed({}, ["mx.test"]) == "the certificate is for no name at all and not for mx.test"


def test_contexts_are_built_once_and_shared() -> None:
    contexts = Contexts()
    assert [contexts.of(level) is contexts.of(level) for level in ("may", "encrypt", "verify")] == [True] * 3
    assert len({id(contexts.of(level)) for level in ("may", "encrypt", "verify")}) == 3


def test_only_may_takes_old_tls_and_only_verify_asks_for_a_path() -> None:  # L11
    contexts = Contexts()
    for level in ("encrypt", "verify"):
        assert contexts.of(level).minimum_version == ssl.TLSVersion.TLSv1_2
        # The list of the library: nothing anonymous, nothing without encryption, no export suites.
        assert not [c for c in contexts.of(level).get_ciphers() if c["auth"] == "auth-null" or c["strength_bits"] < 128]
    may = contexts.of("may")
    assert may.options & ssl.OP_NO_SSLv3
    assert [contexts.of(level).verify_mode for level in ("may", "encrypt", "verify")] == [
        ssl.CERT_NONE, ssl.CERT_NONE, ssl.CERT_REQUIRED,
    ]  # fmt: skip


def test_a_ca_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    with pytest.raises(ValueError, match=r"ca_file .*empty\.pem cannot be used"):
        Contexts(str(empty)).of("verify")
    with pytest.raises(ValueError, match="No such file"):
        Contexts(str(tmp_path / "none.pem")).of("verify")


def test_the_ca_file_takes_the_place_of_the_systems(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)
    assert len(Contexts(str(file)).of("verify").get_ca_certs()) == 1


def test_a_failed_handshake_is_told_in_words() -> None:
    expired = ssl.SSLCertVerificationError(1, "x")
    expired.verify_message = "certificate has expired"
    assert said(expired) == "the certificate is not valid: certificate has expired"
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    wrong.reason = "WRONG_VERSION_NUMBER"
    assert said(wrong) == "wrong version number"
    assert said(ConnectionResetError()) == "the host closed the connection"
