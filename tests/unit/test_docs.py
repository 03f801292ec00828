"""The documents name what there is."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import core.settings
from core.datasets import Dataset, Question, load_datasets
from tests import commands_table, endpoints_table, settings_table

ROOT = Path(__file__).parents[2]
# Perspective's API: its errors have Google's shape.
GOOGLES = {
    "/v1alpha1/comments:analyze",
    "/v1alpha1/comments:suggestscore",
    "/$discovery/rest",
    "/discovery/v1/apis/commentanalyzer/v1alpha1/rest",
}
GUIDE = (ROOT / "docs" / "guide.md").read_text()


def _groups(base: type[BaseModel]) -> set[type[BaseModel]]:
    return {base}.union(*(_groups(child) for child in base.__subclasses__()))


def test_the_configuration_page_is_what_the_settings_say() -> None:
    assert settings_table.PAGE.read_text() == settings_table.page(), "run python -m tests.settings_table"


def test_every_settings_group_is_on_the_configuration_page() -> None:
    listed = {group for groups in settings_table.GROUPS.values() for group in groups}
    ours = {"core", "ingestion_api", "uploader", "serving_api", "cli", "local_stack"}
    there = {group for group in _groups(BaseSettings) if group.__module__.split(".")[0] in ours}
    assert there - {core.settings.SettingsGroup} == listed


def test_every_setting_is_described() -> None:
    for groups in settings_table.GROUPS.values():
        for group in groups:
            for name, field in settings_table.variables(group).items():
                assert field.description, name


def test_the_commands_page_is_what_the_commands_say() -> None:
    assert commands_table.PAGE.read_text() == commands_table.page(), "run python -m tests.commands_table"


def test_every_argument_and_option_is_described() -> None:
    for name, command in commands_table.commands():
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)


def test_the_endpoints_page_is_what_the_apis_say() -> None:
    assert endpoints_table.PAGE.read_text() == endpoints_table.page(), "run python -m tests.endpoints_table"


@pytest.fixture(params=["ingestion_api", "serving_api"])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> FastAPI:
    return endpoints_table.make_app(request.param, tmp_path)


def test_every_answer_has_an_example(api: FastAPI) -> None:
    for path, operations in api.openapi()["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                for media in answer.get("content", {}).values():
                    assert "example" in media or "examples" in media, (path, status)


def test_every_answer_has_a_schema(api: FastAPI) -> None:
    for path, operations in api.openapi()["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                for kind, media in answer.get("content", {}).items():
                    assert media["schema"], (path, status)
                    is_refusal = status >= "4" and (path, status) != ("/readyz", "503")
                    if is_refusal and path in GOOGLES:
                        assert media["schema"]["$ref"].endswith("/GoogleError"), (path, status)
                        continue
                    assert (kind == "application/problem+json") == is_refusal, (path, status)


def _sends_something(operation: dict[str, Any]) -> bool:
    return any("content" in answer for status, answer in operation["responses"].items() if status < "3")


def test_every_endpoint_refuses_what_it_does_not_send(api: FastAPI) -> None:
    client = TestClient(api)
    for path, operations in api.openapi()["paths"].items():
        sending = [method for method, o in operations.items() if method == "head" or _sends_something(o)]
        for method in sending:
            answer = client.request(method, path, headers={"Accept": "image/png"})
            assert answer.status_code == 406, (method, path)


def test_only_what_needs_a_key_says_so(api: FastAPI) -> None:
    document = api.openapi()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    open_paths = {path for path, o in document["paths"].items() if not any("security" in x for x in o.values())}
    discovery = {path for path in GOOGLES & document["paths"].keys() if "discovery" in path}
    assert open_paths == {"/", "/healthz", "/readyz", "/metrics"} | discovery


def test_every_get_answers_head(api: FastAPI) -> None:
    with TestClient(api, raise_server_exceptions=False) as client:
        documented = [path for path, operations in api.openapi()["paths"].items() if "get" in operations]
        for path in [*documented, "/docs", "/redoc", "/openapi.json"]:
            assert client.head(path).status_code == client.get(path).status_code, path


def test_the_pages_of_an_api_need_nothing_from_elsewhere(api: FastAPI) -> None:
    page = TestClient(api).get("/docs")
    assert page.status_code == 200
    assert re.findall(r"(?:src|href)=.(?:https?:)?//", page.text) == []


def test_every_key_of_a_datasets_file_is_in_the_guide() -> None:
    section = GUIDE.partition("\n## Datasets\n")[2].partition("\n### Disputes\n")[0]
    for kind in (Dataset, Question):
        for name in kind.model_fields:
            assert f"`{name}`" in section, name
            assert f"\n{name} = " in section or name == "questions", name


def test_the_datasets_file_in_the_guide_is_right(tmp_path: Path) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(GUIDE.partition("```toml\n")[2].partition("```")[0])
    toxicity, spam = load_datasets(file).values()
    assert [question.type for question in toxicity.questions] == ["rating", "span", "text"]
    assert spam.enriches


def test_the_mistake_in_the_guide_is_one(tmp_path: Path) -> None:
    file = tmp_path / "datasets.toml"
    example = GUIDE.partition("```toml\n")[2].partition("```")[0]
    file.write_text(example.replace("answers_wanted = 3", "answers_wanted = 0"))
    with pytest.raises(SystemExit) as refusal:
        load_datasets(file)
    said = str(refusal.value).removeprefix(f"{tmp_path}/")
    assert said in " ".join(GUIDE.split())


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
