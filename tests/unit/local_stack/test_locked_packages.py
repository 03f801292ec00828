"""Tests of local_stack.locked_packages."""

import pytest

from local_stack.locked_packages import PROJECT, environment_for_uv, from_pip


def test_what_pip_was_told_is_told_to_uv() -> None:
    printed = "global.index-url='https://one.example/simple'\nglobal.timeout='60'\nglobal.cert='/a b/c.crt'\n"
    assert from_pip(printed) == {"UV_DEFAULT_INDEX": "https://one.example/simple", "SSL_CERT_FILE": "/a b/c.crt"}


def test_the_environment_wins_over_files_and_several_values_stay_several() -> None:
    printed = ":env:.index-url='https://two.example'\nglobal.index-url='https://one.example'\n"
    printed += "install.extra-index-url='https://a.example https://b.example'\n"
    assert from_pip(printed) == {
        "UV_DEFAULT_INDEX": "https://two.example",
        "UV_INDEX": "https://a.example https://b.example",
    }


def test_a_python_without_pip_adds_nothing() -> None:
    assert from_pip("") == {}


def test_what_is_set_for_uv_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://one.example")
    assert environment_for_uv()["UV_DEFAULT_INDEX"] == "https://one.example"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://two.example")
    assert environment_for_uv()["UV_DEFAULT_INDEX"] == "https://two.example"


def test_the_packages_are_those_of_this_project() -> None:
    assert (PROJECT / "Pipfile.lock").is_file()
