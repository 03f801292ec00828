"""What an export shows of a text: the columns of `GET /texts`, as SQL expressions for each kind of file."""

from collections.abc import Mapping
from enum import Enum, auto


class Kind(Enum):
    """What a column holds."""

    TEXT = auto()
    NUMBER = auto()
    MOMENT = auto()
    JSON = auto()  # as text, the way Postgres wrote it


COLUMNS = {
    "id": Kind.TEXT,
    "dataset": Kind.TEXT,
    "text": Kind.TEXT,
    "label": Kind.TEXT,
    "status": Kind.TEXT,
    "agreement": Kind.NUMBER,
    "votes": Kind.JSON,
    "annotations": Kind.NUMBER,
    "confidence": Kind.NUMBER,
    "rule": Kind.TEXT,
    "rule_version": Kind.NUMBER,
    "decided_by": Kind.TEXT,
    "source": Kind.TEXT,
    "external_id": Kind.TEXT,
    "claimed_label": Kind.TEXT,
    "score": Kind.NUMBER,
    "metadata": Kind.JSON,
    "enrichment": Kind.JSON,
    "received_at": Kind.MOMENT,
    "labelled_at": Kind.MOMENT,
}

# As serving_api.texts.parameters.to_text.
_MOMENT = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ')"

# JSON columns are put in as they are: read and written again, their long numbers would change.
_IN_JSON = {
    Kind.TEXT: "coalesce(to_json({0})::varchar, 'null')",
    Kind.NUMBER: "coalesce(to_json({0})::varchar, 'null')",
    Kind.MOMENT: f"""concat('"', {_MOMENT}, '"')""",
    Kind.JSON: "{0}",
}

# In quotes whatever it holds, so that an empty text and none differ: "" and nothing.
_QUOTED = """'"' || replace({0}, '"', '""') || '"'"""
_IN_CSV = {
    Kind.TEXT: _QUOTED.format("{0}::varchar"),
    Kind.NUMBER: "to_json({0})::varchar",
    Kind.MOMENT: _MOMENT,
    Kind.JSON: _QUOTED,
}

# What a spreadsheet takes for a formula, also behind blanks and quotes, and what it might take away to get at one;
# by https://owasp.org/www-community/attacks/CSV_Injection.
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
    """Return the select list of the columns as they are; ids are texts."""
    return ", ".join(f"{name}::varchar as id" if name == "id" else name for name in COLUMNS)


def json_object() -> str:
    """Return one expression: the JSON object of `GET /texts`."""
    members = [f"""'"{name}":', {value}""" for name, value in _values(_IN_JSON)]
    return f"concat('{{', {_COMMA.join(members)}, '}}')"


def json_line() -> str:
    """Return one expression: the JSON object of `GET /texts`, as it is kept ready, and a line feed."""
    return "document || chr(10) as line"


def csv_line(*, for_spreadsheet: bool) -> str:
    """Return one expression: the fields as RFC 4180 has them, and the end of the line."""
    values = [value for _, value in _values(_IN_SPREADSHEET if for_spreadsheet else _IN_CSV)]
    return f"concat({_COMMA.join(values)}, chr(13), chr(10)) as line"


def csv_header() -> str:
    """Return the first line of a CSV file."""
    return f"{','.join(COLUMNS)}\r\n"


def _values(expressions: Mapping[Kind, str]) -> list[tuple[str, str]]:
    return [(name, expressions[kind].replace("{0}", name)) for name, kind in COLUMNS.items()]
