"""The columns of an item, each stated once: `TextItem` is what clients see, `StoredItem` what the replica stores.

The change feed, the replica's tables, the exports, the snapshots and the viewer take their columns from here.
To add a column: add a field to `TextItem`, raise `serving_api.replica.tables.LAYOUT`, and migrate Postgres where
it does not hold the value yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, Field

from core.datasets import LabelRule
from core.models import Decider


class Kind(Enum):
    """How a column is rendered and compared."""

    TEXT = auto()
    NUMBER = auto()
    FLAG = auto()
    MOMENT = auto()
    JSON = auto()  # text, as Postgres wrote it


@dataclass(frozen=True, slots=True)
class From:
    """The source of a column, and properties of its values."""

    sql: str  # in Postgres, over `labels as l`, `texts as t`, `predictions as p` and `first_twin`
    changes: bool = False  # whether it may change while `labelled_at` stays
    repeats: bool = False  # whether many rows share a value: worth a dictionary in Parquet
    type: str = ""  # in DuckDB, where it does not follow from Python's


class TextItem(BaseModel):
    """A labelled text."""

    id: Annotated[UUID, From("t.id")] = Field(
        description="UUID; a function of dataset and text alone.",
        examples=["5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d11"],
    )
    dataset: Annotated[str, From("l.dataset", repeats=True)] = Field(
        description="Dataset that the text belongs to.", examples=["toxicity"]
    )
    text: Annotated[str, From("t.text")] = Field(
        description="The text, after Unicode NFC and stripping outer white space.", examples=["you are an idiot"]
    )
    label: Annotated[str | None, From("l.label", changes=True, repeats=True)] = Field(
        description="The result of the annotations by `rule`; null if the text is disputed.", examples=["toxic"]
    )
    status: Annotated[Literal["labelled", "disputed"], From("l.status", changes=True, repeats=True)] = Field(
        description="`labelled` or `disputed`.", examples=["labelled"]
    )
    agreement: Annotated[float, From("l.agreement", changes=True, repeats=True)] = Field(
        description="Share of the votes for the label, or for the most frequent one.", examples=[0.75]
    )
    votes: Annotated[dict[str, int], From("l.votes", changes=True, repeats=True)] = Field(
        description="Submitted annotations by label.", examples=[{"non_toxic": 1, "toxic": 3}]
    )
    annotations: Annotated[int, From("l.annotations", changes=True, repeats=True)] = Field(
        description="Number of submitted annotations.", examples=[4]
    )
    complete: Annotated[bool, From("t.completed_at is not null", changes=True, repeats=True)] = Field(
        description="Whether it has as many submitted annotations as its dataset requires.", examples=[True]
    )
    confidence: Annotated[float | None, From("l.confidence", changes=True, repeats=True)] = Field(
        description="Probability of the label by `rule`, or the majority's share; null if there is no label.",
        examples=[0.75],
    )
    rule: Annotated[LabelRule, From("l.rule", changes=True, repeats=True)] = Field(
        description="The rule that derived the label from the annotations.", examples=["majority"]
    )
    rule_version: Annotated[int, From("l.rule_version", changes=True, repeats=True)] = Field(
        description="Increases with each estimate of the rule.", examples=[1]
    )
    decided_by: Annotated[Decider, From("l.decided_by", changes=True, repeats=True)] = Field(
        description="`annotators` or `adjudicators`: whose answers decided the label.",
        examples=["annotators"],
    )
    source: Annotated[str | None, From("t.source", repeats=True)] = Field(
        description="Source of the text, given by its sender.", examples=["forum"]
    )
    external_id: Annotated[str | None, From("t.external_id")] = Field(
        description="The sender's own id of the text.", examples=["post-17"]
    )
    claimed_label: Annotated[str | None, From("t.claimed_label", repeats=True)] = Field(
        description="Label that the sender claimed; it does not count as a vote.", examples=["toxic"]
    )
    score: Annotated[float | None, From("t.score")] = Field(
        description="The sender's confidence in `claimed_label`, 0 to 1.", examples=[0.91]
    )
    metadata: Annotated[dict[str, str | float | bool], From("t.metadata")] = Field(
        description="Further data from the sender.", examples=[{"thread": 4}]
    )
    enrichment: Annotated[dict[str, Any], From("t.enrichment", repeats=True)] = Field(
        description="Results of the intake, such as `language` and `redacted`.",
        examples=[{"language": {"code": "en", "confidence": 0.91}}],
    )
    predicted_label: Annotated[str | None, From("p.label", changes=True, repeats=True)] = Field(
        description="Label that the active model gives the text. The model learnt from texts without this one; "
        "null without a model.",
        examples=["toxic"],
    )
    predicted_probability: Annotated[float | None, From("p.probability", changes=True)] = Field(
        description="Probability of `predicted_label` by the model, 0 to 1.", examples=[0.94]
    )
    model_version: Annotated[str | None, From("p.model_version", changes=True, repeats=True)] = Field(
        description="Version of the model, as in `GET /models`.", examples=["3f1c9a5be027"]
    )
    received_at: Annotated[datetime, From("t.received_at at time zone 'utc'")] = Field(
        description="When the text was received.", examples=["2026-11-01T08:30:00.000000Z"]
    )
    labelled_at: Annotated[datetime, From("l.labelled_at at time zone 'utc'")] = Field(
        description="When the text got its first label; edits keep it.", examples=["2026-11-02T09:12:44.120934Z"]
    )


class StoredItem(TextItem):
    """A labelled text as the replica stores it."""

    gold_label: Annotated[str | None, From("t.gold_label", changes=True)] = Field(
        description="The known answer of a gold text."
    )
    language: Annotated[str | None, From("t.enrichment -> 'language' ->> 'code'")] = Field(
        description="The language in `enrichment`."
    )
    near_duplicate_of: Annotated[UUID | None, From("first_twin.id")] = Field(
        description="The first text of its near duplicates."
    )
    quality: Annotated[float | None, From("case when p.quality_of = l.label then p.quality end", changes=True)] = (
        Field(
            description="How likely the label is right by the votes and the model, 0 to 1; null for a newer label."
        )
    )
    version: Annotated[int, From("l.changed_xid::text::bigint", changes=True, type="bigint")] = Field(
        description="Point of the change feed of its last change."
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an item."""

    name: str
    kind: Kind
    type: str  # in DuckDB
    is_nullable: bool
    origin: From
    meaning: str
    example: Any

    @property
    def definition(self) -> str:
        """How a table declares it."""
        return f"{self.name} {self.type}{'' if self.is_nullable else ' not null'}"

    @property
    def arrow_type(self) -> str:
        """The name of its type in exports, for Apache Arrow and Hugging Face's `datasets`."""
        return _ARROW_TYPES[self.type]


_TYPES: dict[Any, tuple[Kind, str]] = {
    UUID: (Kind.TEXT, "uuid"),
    bool: (Kind.FLAG, "boolean"),
    int: (Kind.NUMBER, "integer"),
    float: (Kind.NUMBER, "double"),
    datetime: (Kind.MOMENT, "timestamp"),
    dict: (Kind.JSON, "varchar"),
}
_ARROW_TYPES = {
    "uuid": "string",
    "varchar": "string",
    "boolean": "bool",
    "integer": "int32",
    "bigint": "int64",
    "double": "float64",
    "timestamp": "timestamp[us, tz=UTC]",
}


def _columns_of(model: type[BaseModel]) -> dict[str, Column]:
    return {name: _column(name, model) for name in model.model_fields}


def _column(name: str, model: type[BaseModel]) -> Column:
    field = model.model_fields[name]
    (origin,) = (mark for mark in field.metadata if isinstance(mark, From))
    python_type, is_nullable = field.annotation, False
    if get_origin(python_type) in {Union, UnionType}:
        python_type, is_nullable = get_args(python_type)[0], True
    kind, type_ = _TYPES.get(get_origin(python_type) or python_type, (Kind.TEXT, "varchar"))
    example = field.examples[0] if field.examples else None
    return Column(name, kind, origin.type or type_, is_nullable, origin, field.description or "", example)


# The columns that clients see, in this order.
COLUMNS = _columns_of(TextItem)
# The columns of the change feed: these, and those that only the replica needs.
STORED = _columns_of(StoredItem)

EXAMPLE_ITEM = {name: column.example for name, column in COLUMNS.items()}

# As serving_api.texts.parameters.to_text.
_MOMENT = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ')"

# JSON columns are copied: parsing them would change long numbers.
_IN_JSON = {
    Kind.TEXT: "coalesce(to_json({0})::varchar, 'null')",
    Kind.NUMBER: "coalesce(to_json({0})::varchar, 'null')",
    Kind.FLAG: "{0}::varchar",
    Kind.MOMENT: f"""concat('"', {_MOMENT}, '"')""",
    Kind.JSON: "{0}",
}

# Always in quotes, so that an empty text ("") differs from null (nothing).
_QUOTED = """'"' || replace({0}, '"', '""') || '"'"""
_IN_CSV = {
    Kind.TEXT: _QUOTED.format("{0}::varchar"),
    Kind.NUMBER: "to_json({0})::varchar",
    Kind.FLAG: "{0}::varchar",
    Kind.MOMENT: _MOMENT,
    Kind.JSON: _QUOTED,
}

# Cells that a spreadsheet may read as a formula, also after blanks, quotes or characters that it may strip; see
# https://owasp.org/www-community/attacks/CSV_Injection.
_FORMULA = r"""^[\s\p{Z}\p{C}"'']*[=+\-@＝＋－＠]|^[\t\r\n]"""
_NO_FORMULA = f"case when regexp_matches({{0}}, '{_FORMULA}') then '''' || {{0}} else {{0}} end".replace(
    "{0}", "{0}::varchar"
)
_IN_SPREADSHEET = _IN_CSV | {
    Kind.TEXT: _QUOTED.format(f"({_NO_FORMULA})"),
    Kind.JSON: _QUOTED.format(f"({_NO_FORMULA})"),
}

_COMMA = ", ',', "


def typed() -> str:
    """Return the select list of the columns with their types; ids are strings."""
    return ", ".join(f"{name}::varchar as id" if name == "id" else name for name in COLUMNS)


def json_object() -> str:
    """Return one expression: the JSON object of `GET /texts`."""
    members = [f"""'"{name}":', {value}""" for name, value in _values(_IN_JSON)]
    return f"concat('{{', {_COMMA.join(members)}, '}}')"


def json_line() -> str:
    """Return one expression: the stored JSON object of `GET /texts`, and a line feed."""
    return "document || chr(10) as line"


def csv_line(*, for_spreadsheet: bool) -> str:
    """Return one expression: the fields by RFC 4180, and the end of the line."""
    values = [value for _, value in _values(_IN_SPREADSHEET if for_spreadsheet else _IN_CSV)]
    return f"concat({_COMMA.join(values)}, chr(13), chr(10)) as line"


def csv_header() -> str:
    """Return the first line of a CSV file."""
    return f"{','.join(COLUMNS)}\r\n"


def _values(expressions: Mapping[Kind, str]) -> list[tuple[str, str]]:
    return [(name, expressions[column.kind].replace("{0}", name)) for name, column in COLUMNS.items()]
