"""What the OpenAPI documents say beyond what FastAPI makes of the code."""

import json
import re
from pathlib import Path

from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings, DatasetsFileSettings
from core.web.openapi import BLANK, VISIBLE, describe, refusals
from core.web.problems import FieldError, InvalidFields, Unavailable, problem_response
from ingestion_api.bulk.label_map import LABEL_MAP, parse_label_map
from ingestion_api.main import create_app
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.schemas import TextCreate

BLANKS = [chr(n) for n in range(0x110000) if chr(n).isspace()]
DATABASE = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))


def test_blank_is_what_strip_takes_away() -> None:
    assert re.findall(f"[{BLANK}]", "".join(map(chr, range(0x110000)))) == BLANKS


INVISIBLE = ["\u200b", "\u3164", "\u2800", "\x01", "\U000e0001", *BLANKS]


@given(st.text(st.sampled_from(["a", "\u0301", "\0", *INVISIBLE])))
def test_the_pattern_of_a_text_is_what_is_checked(text: str) -> None:
    try:
        TextCreate.model_validate({"text": text}, context=load_datasets(None))
    except ValidationError:
        assert not re.search(VISIBLE, text)
    else:
        assert re.search(VISIBLE, text)


@given(st.text(st.sampled_from([":", ",", "a", " ", "\u3000", "\\"])))
def test_the_pattern_of_a_label_map_is_what_is_checked(parameter: str) -> None:
    try:
        parse_label_map(parameter)
    except InvalidFields:
        assert not re.search(LABEL_MAP, parameter)
    else:
        assert re.search(LABEL_MAP, parameter)


_TWO_DATASETS = """
    [toxicity]
    labels = ["toxic", "non_toxic"]
    guidelines = "…"
    [mail]
    labels = ["spam", "ham"]
    guidelines = "…"
"""


def test_the_names_that_the_settings_define_are_listed(tmp_path: Path) -> None:
    (tmp_path / "datasets.toml").write_text(_TWO_DATASETS)
    datasets_file = DatasetsFileSettings(datasets_file=tmp_path / "datasets.toml")
    document = create_app(IngestionSettings(), DATABASE, AccessSettings(), datasets_file).openapi()
    fields = document["components"]["schemas"]["TextCreate"]["properties"]
    assert fields["dataset"]["anyOf"][0] == {"type": "string", "enum": ["mail", "toxicity"]}
    assert fields["label"]["anyOf"][0] == {"type": "string", "enum": ["ham", "non_toxic", "spam", "toxic"]}
    assert document["components"]["schemas"]["TextCreate"]["anyOf"] == [
        {
            "properties": {"dataset": {"enum": ["mail"]}, "label": {"enum": ["spam", "ham", None]}},
            "required": ["dataset"],
        },
        {
            "properties": {
                "dataset": {"enum": ["toxicity", None]},
                "label": {"enum": ["toxic", "non_toxic", None]},
            },
            "required": [],
        },
    ]
    (dataset,) = document["paths"]["/queue"]["get"]["parameters"]
    assert dataset["schema"]["enum"] == ["mail", "toxicity"]


def test_no_key_is_asked_for_where_none_is_required() -> None:
    app = create_app(IngestionSettings(), DATABASE, AccessSettings(require_api_key=False), DatasetsFileSettings())
    document = app.openapi()
    assert "securitySchemes" not in document["components"]
    assert "security" not in document["paths"]["/texts"]["post"]


def test_a_described_refusal_is_the_one_that_is_sent() -> None:
    """Statuses, headers and bodies in the document come from the problems themselves."""
    wrong = InvalidFields([FieldError("unknown_label", "is not a label", pointer="/label")])
    described = refusals(wrong, Unavailable("The intake is full.", code="intake_full"), scope="ingest")
    assert list(described) == [401, 403, 422, 429, 503]
    for status, problem in ((422, wrong), (503, Unavailable("The intake is full.", code="intake_full"))):
        sent = problem_response(problem)
        assert described[status]["content"]["application/problem+json"]["example"] == json.loads(bytes(sent.body))
    assert described[503]["headers"]["Retry-After"]["example"] == "1"
    assert described[403]["content"]["application/problem+json"]["example"]["detail"].endswith("scope ingest.")
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} == described[429]["headers"].keys()


def test_the_example_of_a_model_is_shown_at_the_response() -> None:
    class Cat(BaseModel):
        model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Tom"}]})

        name: str

    app = FastAPI()

    @app.get("/cat", responses={404: {"content": {"application/json": {"example": {"name": "none"}}}}})
    async def cat() -> Cat:
        return Cat(name="Tom")

    describe(app, load_datasets(None), False)
    responses = app.openapi()["paths"]["/cat"]["get"]["responses"]
    assert responses["200"]["content"]["application/json"]["example"] == {"name": "Tom"}
    assert responses["404"]["content"]["application/json"]["example"] == {"name": "none"}
