"""The certificate that we show: read whole or not at all, re-read when it changes, warned about before it ends."""

import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mailtui.pem import PemError
from mailtui.tls.serving import EXPIRY_NOTICE, TELL_AGAIN, Certificate, server_context
from tests.support.certificates import Files, issue

NOW = 1_700_000_000.0
DAY = 86400.0


def certificate(files: Files) -> Certificate:
    return Certificate(str(files.certificate), str(files.key))


def test_facts_of_a_certificate(tmp_path: Path) -> None:
    found = certificate(issue(tmp_path, "relay.example.org", "mx.example.org", not_after=NOW + 90 * DAY))
    assert found.context is None and found.refresh(NOW)
    assert found.context is not None and found.error == ""
    assert found.names == ("relay.example.org", "mx.example.org")
    assert found.not_after == NOW + 90 * DAY
    assert found.warning(NOW) is None


def test_context_is_strict(tmp_path: Path) -> None:  # L11
    files = issue(tmp_path, "relay.example.org")
    context = server_context(str(files.certificate), str(files.key))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION
    for cipher in context.get_ciphers():
        # Forward secrecy, encryption and authentication in every suite.
        assert cipher["kea"] in ("kx-any", "kx-ecdhe", "kx-dhe"), cipher["name"]
        assert cipher["auth"] != "auth-null" and cipher["strength_bits"] >= 128, cipher["name"]
        assert cipher["digest"] != "sha1", cipher["name"]


def test_it_is_read_again_only_when_a_file_has_changed(tmp_path: Path) -> None:
    found = certificate(issue(tmp_path, "a.example"))
    assert found.refresh(NOW)
    first = found.context
    assert not found.refresh(NOW + 1) and found.context is first
    issue(tmp_path, "b.example")
    assert found.refresh(NOW + 2)
    assert found.context is not first and found.names == ("b.example",)


def test_certificate_without_its_key_is_not_half_taken(tmp_path: Path) -> None:
    """Whoever replaces two files replaces one of them first."""
    files = issue(tmp_path, "a.example")
    found = certificate(files)
    found.refresh(NOW)
    before = found.context
    other = issue(tmp_path / "new", "b.example")
    os.replace(other.certificate, files.certificate)
    assert not found.refresh(NOW + 1)
    assert found.context is before and found.names == ("a.example",)
    assert found.warning(NOW + 1) == (
        f"certificate: {files.key} is not the key of the certificate in {files.certificate};"
        " the one read before is still used",
        NOW + 1,
    )
    assert not found.refresh(NOW + 5)
    assert found.warning(NOW + 5)[1] == NOW + 1  # type: ignore[index]
    os.replace(other.key, files.key)
    assert found.refresh(NOW + 6)
    assert found.warning(NOW + 6) is None and found.names == ("b.example",)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    files = issue(tmp_path, "a.example")
    good = files.key.read_bytes()
    files.key.unlink()
    found = certificate(files)
    assert not found.refresh(NOW)
    assert found.context is None
    assert found.warning(NOW) == (f"certificate: {files.key} cannot be read: No such file or directory; no TLS", NOW)
    files.key.write_bytes(b"no key")
    assert not found.refresh(NOW)
    assert found.error.startswith(f"{files.certificate} and {files.key} cannot be used")
    files.key.write_bytes(good)
    assert found.refresh(NOW)
    files.certificate.write_bytes(b"")
    assert not found.refresh(NOW)
    assert found.context is not None


def test_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    files = issue(tmp_path, "a.example")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(PemError, match=r"tls\.key needs a passphrase; the relay takes a key without one"):
        server_context(str(files.certificate), str(files.key))


def test_warned_about_from_21_days_before_the_end_on(tmp_path: Path) -> None:
    end = NOW + 100 * DAY
    found = certificate(issue(tmp_path, "a.example", not_after=end))
    found.refresh(NOW)
    assert EXPIRY_NOTICE == 21 * DAY
    assert found.warning(end - EXPIRY_NOTICE - 1) is None
    text, since = found.warning(end - EXPIRY_NOTICE) or ("", 0.0)
    assert "ends on 2024-02-22, in 21 days" in text and since == end - EXPIRY_NOTICE
    assert "in 0 days" in (found.warning(end - 1) or ("", 0.0))[0]
    text, since = found.warning(end) or ("", 0.0)
    assert "has ended on 2024-02-22" in text and since == end
    assert found.context is not None  # many clients look at no certificate: they still get their TLS


def test_news_once_a_day_and_at_every_change(tmp_path: Path) -> None:
    end = NOW + 10 * DAY
    files = issue(tmp_path, "a.example", not_after=end)
    found = certificate(files)
    found.refresh(NOW)
    assert "in 10 days" in found.news(NOW)
    assert found.news(NOW + TELL_AGAIN - 1) == ""
    assert "in 9 days" in found.news(NOW + TELL_AGAIN)
    files.key.write_bytes(b"")
    found.refresh(NOW + TELL_AGAIN + 1)
    assert "cannot be used" in found.news(NOW + TELL_AGAIN + 1)
    issue(tmp_path, "a.example", not_after=end + 90 * DAY)
    found.refresh(NOW + TELL_AGAIN + 2)
    assert found.news(NOW + TELL_AGAIN + 2) == ""
    assert "has ended" in found.news(end + 90 * DAY)
