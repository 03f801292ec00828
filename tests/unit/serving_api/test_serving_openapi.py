"""The documentation shows an example of every parameter and answer, and they are true to their schemas."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, SecretStr

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings
from serving_api.changes.endpoints import ChangesPage
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from serving_api.statistics.schemas import AgreementStats, AnnotatorsStats, Stats
from serving_api.texts.schemas import CountedPage, TextDetail, TextPage
from serving_api.viewer import schemas as viewer
from serving_api.viewer.endpoints import router as viewer_router
from serving_api.viewer.statistics import Statistics

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
    *(route.path for route in viewer_router.routes if isinstance(route, APIRoute)),
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


@pytest.mark.parametrize(
    "model",
    [
        *(CountedPage, TextPage, TextDetail, Stats, AgreementStats, AnnotatorsStats, ChangesPage),
        *(viewer.Validity, viewer.Splits, viewer.FirstRows, viewer.RowsPage, viewer.ParquetFiles),
        *(viewer.Croissant, viewer.Size, viewer.Info, Statistics),
    ],
)
def test_examples_are_true_to_their_schemas(model: type[BaseModel]) -> None:
    [example] = model.model_json_schema()["examples"]
    model.model_validate(example, extra="forbid")
