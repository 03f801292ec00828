"""The documentation shows an example of every parameter and answer, and they are true to their schemas."""

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.texts import documentation, schemas
from serving_api.viewer.schemas import RESPONSES as VIEWER

DATA_PATHS = [
    "/texts",
    "/texts/{id}",
    "/toxic_texts",
    "/non_toxic_texts",
    "/disputed",
    "/export.parquet",
    "/export.arrow",
    "/export.arrows",
    "/export.ndjson",
    "/export.csv",
    "/changes",
    "/stats",
    "/stats/agreement",
    "/stats/annotators",
    *VIEWER,
]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    app: FastAPI = create_app(
        ServingSettings(),
        ReplicaSettings(),
        DataSettings(),
        DatabaseSettings(url=SecretStr("postgresql://app:app@127.0.0.1:1/app")),
        AccessSettings(),
        load_datasets(None),
    )
    return app.openapi()


@pytest.mark.parametrize("path", DATA_PATHS)
def test_every_answer_has_an_example(openapi: dict[str, Any], path: str) -> None:
    answers = openapi["paths"][path]["get"]["responses"]
    assert {"200", "400", "401", "403", "422", "503"} <= answers.keys()
    for status, answer in answers.items():
        if status == "304":
            continue
        for kind, content in answer["content"].items():
            assert content["example"], (status, kind)
            assert (kind == "application/problem+json") == (status not in {"200", "206"})


@pytest.mark.parametrize("path", DATA_PATHS)
def test_every_parameter_is_described_with_an_example(openapi: dict[str, Any], path: str) -> None:
    for parameter in openapi["paths"][path]["get"].get("parameters", []):
        assert parameter.get("description") or parameter["schema"].get("description"), parameter
        assert "examples" in parameter["schema"] or "example" in parameter, parameter


def test_examples_are_true_to_their_schemas() -> None:
    for answers, model in (
        (documentation.PAGE, schemas.CountedPage),
        (documentation.TEXT, schemas.TextDetail),
        (documentation.STATS, schemas.Stats),
        (documentation.DISPUTED, schemas.TextPage),
        (documentation.AGREEMENT, schemas.AgreementStats),
        (documentation.CHANGES, schemas.ChangesPage),
        (documentation.ANNOTATORS, schemas.AnnotatorsStats),
    ):
        model.model_validate(answers[200]["content"]["application/json"]["example"], extra="forbid")
