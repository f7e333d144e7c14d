"""Settings that would be unsafe are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.cli.known_settings import settings_classes, unknown_variables
from server.errors import SettingRefused
from server.settings import ServerSettings, is_loopback


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    (tmp_path / "x.pem").write_text("")
    return tmp_path / "x.pem"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "nowhere.invalid"])
@pytest.mark.parametrize("name", ["http_host", "dimse_host"])
def test_beyond_loopback_needs_tls(name: str, host: str) -> None:
    with pytest.raises(SettingRefused, match=name):
        ServerSettings(**{name: host, "allowed_ae_titles": ["A"]}).refuse_unsafe()


def test_plain_text_beyond_loopback_has_to_be_said() -> None:
    ServerSettings(http_host="0.0.0.0", allow_plain_text_beyond_loopback=True).refuse_unsafe()


def test_http_and_dimse_need_tls_each(pem: Path) -> None:
    http: dict[str, Any] = {"http_host": "0.0.0.0", "tls_certificate": pem, "tls_key": pem}
    ServerSettings(**http).refuse_unsafe()
    beyond = http | {"dimse_host": "0.0.0.0", "allowed_ae_titles": ["A"]}
    with pytest.raises(SettingRefused, match="dimse_host"):
        ServerSettings(**beyond).refuse_unsafe()
    ServerSettings(**beyond, dimse_tls_certificate=pem, dimse_tls_key=pem).refuse_unsafe()


def test_beyond_loopback_senders_have_to_be_named() -> None:
    with pytest.raises(SettingRefused, match="allowed_ae_titles"):
        ServerSettings(dimse_host="0.0.0.0", allow_plain_text_beyond_loopback=True).refuse_unsafe()


@pytest.mark.parametrize("one", ["tls_certificate", "tls_key", "dimse_tls_certificate", "dimse_tls_key"])
def test_certificate_and_key_go_together(one: str, pem: Path) -> None:
    with pytest.raises(SettingRefused, match="go together"):
        ServerSettings(**{one: pem}).refuse_unsafe()


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    with pytest.raises(SettingRefused, match="tls_certificate"):
        ServerSettings(tls_certificate=gone, tls_key=gone).refuse_unsafe()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_known_by_number_and_name(host: str) -> None:
    assert is_loopback(host)


def test_every_setting_says_what_it_is() -> None:
    for cls in settings_classes():
        assert [name for name, field in cls.model_fields.items() if not field.description] == []


def test_a_misspelled_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANAMNESIS_HTPT_PORT", "1")
    monkeypatch.setenv("ANAMNESIS_QUIET_SECONDS", "1")  # the workers' own
    assert "ANAMNESIS_HTPT_PORT" in unknown_variables()
    assert "ANAMNESIS_QUIET_SECONDS" not in unknown_variables()
