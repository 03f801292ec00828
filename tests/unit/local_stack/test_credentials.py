import stat
from pathlib import Path

import pytest

from local_stack import StackError
from local_stack.data_dir import load_or_create_credentials


def test_credentials_are_kept(tmp_path: Path) -> None:
    assert load_or_create_credentials(tmp_path) == load_or_create_credentials(tmp_path)


def test_credentials_differ_between_stacks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (load_or_create_credentials(tmp_path / name) for name in ("a", "b"))
    secrets = [name for name in type(first).model_fields if name != "argilla_username"]
    values = [getattr(credentials, name) for credentials in (first, second) for name in secrets]
    assert len(set(values)) == 2 * len(secrets) == 16


def test_a_secret_that_an_older_version_lacked_is_added_once(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    complete = load_or_create_credentials(tmp_path)
    file.write_text(complete.model_dump_json(exclude={"opensearch_password"}))
    (tmp_path / "postgres").mkdir()
    added = load_or_create_credentials(tmp_path)
    assert load_or_create_credentials(tmp_path) == added
    assert added.model_copy(update={"opensearch_password": complete.opensearch_password}) == complete


def test_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    load_or_create_credentials(tmp_path)
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.json"]


def test_damaged_file_is_reported_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text('{"argilla_password": "short-secret"}')
    with pytest.raises(StackError, match="is damaged") as raised:
        load_or_create_credentials(tmp_path)
    assert "short-secret" not in str(raised.value)


def test_lost_file_with_data_left_is_reported(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(StackError, match=r"credentials.json is gone, but .*postgres needs its passwords"):
        load_or_create_credentials(tmp_path)


def test_secrets_are_not_in_the_representation(tmp_path: Path) -> None:
    credentials = load_or_create_credentials(tmp_path)
    assert credentials.argilla_password not in repr(credentials)
