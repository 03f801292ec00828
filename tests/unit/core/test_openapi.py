"""What the OpenAPI documents say beyond what FastAPI makes of the code."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings, DatasetsFileSettings
from core.web.openapi import BLANK, NOT_BLANK
from core.web.problems import InvalidFields
from ingestion_api.bulk.label_map import LABEL_MAP, parse_label_map
from ingestion_api.main import create_app
from ingestion_api.settings import IngestionSettings
from ingestion_api.texts.schemas import TextCreate

BLANKS = [chr(n) for n in range(0x110000) if chr(n).isspace()]
DATABASE = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))


def test_blank_is_what_strip_takes_away() -> None:
    assert [chr(n) for n in range(0x110000) if re.fullmatch(f"[{BLANK}]", chr(n))] == BLANKS


@given(st.text(st.sampled_from(["a", "\0", *BLANKS])))
def test_the_pattern_of_a_text_is_what_is_checked(text: str) -> None:
    try:
        TextCreate.model_validate({"text": text}, context=load_datasets(None))
    except ValidationError:
        assert not re.search(NOT_BLANK, text)
    else:
        assert re.search(NOT_BLANK, text)


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
