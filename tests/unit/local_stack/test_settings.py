from pathlib import Path

import pytest

from local_stack import StackError
from local_stack.settings import StackSettings, load_settings


def test_ports_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTION_PORT", "18080")
    assert load_settings().ingestion_url == "http://127.0.0.1:18080"


def test_data_dir_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert StackSettings(data_dir=Path("data")).data_dir == tmp_path / "data"


def test_wrong_settings_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTION_PORT", "eighty")
    monkeypatch.setenv("OPENSEARCH_PORT", "19200")
    with pytest.raises(StackError) as raised:
        load_settings()
    assert "INGESTION_PORT" in str(raised.value)
    assert "OPENSEARCH_PORT: Input should be less than or equal to 9299" in str(raised.value)


def test_one_port_for_two_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_PORT", "8080")
    with pytest.raises(StackError, match="SERVING_PORT and INGESTION_PORT are both 8080"):
        load_settings()
