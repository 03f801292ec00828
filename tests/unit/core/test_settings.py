"""Wrong settings stop a program with a message that says what to do."""

from pathlib import Path

import pytest

from core.datasets import load_datasets
from core.settings import (
    AccessSettings,
    ArgillaSettings,
    DatabaseSettings,
    Limit,
    read_settings,
    refuse_open_bind,
)


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(SystemExit, match="DATABASE_URL: Field required"):
        read_settings(DatabaseSettings)


def test_a_wrong_database_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:secret@host/db")
    with pytest.raises(SystemExit, match="must start with postgresql://") as stop:
        read_settings(DatabaseSettings)
    assert "secret" not in str(stop.value)


def test_secrets_do_not_show_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@host/db")
    assert "secret" not in repr(read_settings(DatabaseSettings))


def test_argillas_published_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGILLA_API_KEY", "argilla.apikey")
    with pytest.raises(SystemExit, match="ARGILLA_API_KEY: is empty or a published"):
        read_settings(ArgillaSettings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - what is refused
def test_an_open_address_without_keys_is_refused(host: str) -> None:
    with pytest.raises(SystemExit, match="REQUIRE_API_KEY"):
        refuse_open_bind(host, AccessSettings(require_api_key=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_without_keys_is_allowed(host: str) -> None:
    refuse_open_bind(host, AccessSettings(require_api_key=False))


def test_a_burst_without_a_rate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT_BURST", "5")
    with pytest.raises(
        SystemExit, match="RATE_LIMIT_BURST: limits nothing without RATE_LIMIT_REQUESTS_PER_SECOND"
    ):
        read_settings(AccessSettings)
    monkeypatch.setenv("RATE_LIMIT_REQUESTS_PER_SECOND", "2")
    assert read_settings(AccessSettings).limit == Limit(2, 5)


def test_keys_are_required_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_API_KEY", raising=False)
    assert read_settings(AccessSettings).require_api_key


def test_the_default_dataset_is_toxicity() -> None:
    assert load_datasets(None)["toxicity"].labels == ("toxic", "non_toxic")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[toxicity", "is not TOML"),
        ("", "defines no dataset"),
        ('[a]\nlabels = ["one"]\nguidelines = "x"', "a.labels"),
        ('[a]\nlabels = ["one", "two"]', "a.guidelines"),
        ('[a]\nlabels = ["one", "two"]\nguidelines = "x"\ncolour = 1', "a.colour"),
        ('["a/b"]\nlabels = ["one", "two"]\nguidelines = "x"', "a/b"),
        ('[a]\nlabels = ["one", "one"]\nguidelines = "x"', "a.labels.*twice"),
    ],
)
def test_a_wrong_datasets_file_is_refused_with_the_place(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(content)
    with pytest.raises(SystemExit, match=reason) as stop:
        load_datasets(file)
    assert str(file) in str(stop.value)


def test_a_missing_datasets_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot be read"):
        load_datasets(tmp_path / "none.toml")
