"""From rows as they are in a body to the fields of submissions."""

import io
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.datasets import load_datasets
from core.tables.rows import ColumnsRefused, RowRefused, Table, TableColumn
from core.web.problems import InvalidFields
from ingestion_api.bulk.batches import Batch, BulkUpload, read_batches
from ingestion_api.bulk.label_map import check_targets, parse_label_map
from ingestion_api.bulk.mapping import map_table
from ingestion_api.bulk.schemas import BulkParameters, check_parameters

DATASETS = load_datasets(None)
CSV, NDJSON, PARQUET = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"


def read(media_type: str, body: bytes, **parameters: Any) -> Batch:
    """Read a body of one batch."""
    upload = BulkUpload(media_type, "identity", BulkParameters(**parameters), DATASETS)
    return next(read_batches(upload, [body], 5000), Batch())


def write(**columns: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def fields(columns: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """Map one row, given by column."""
    kinds = {str: "string", int: "integer", float: "number", list: "list", bytes: "binary", bool: "boolean"}
    row = tuple(columns.values())

    def rows(wanted: Sequence[int]) -> Any:
        yield 1, [row[n] for n in wanted]

    table = Table("parquet", [TableColumn(n, kinds.get(type(v), "decimal")) for n, v in columns.items()], rows)
    mapped = map_table(table, BulkParameters(**parameters), DATASETS)
    [(_, cells)] = mapped.rows
    found: dict[str, Any] = mapped.to_fields(cells)
    return found


def test_a_label_map_is_read() -> None:
    assert parse_label_map("Toxic:toxic, Not Toxic:non_toxic,a:b:c") == {
        "Toxic": "toxic",
        "Not Toxic": "non_toxic",
        "a:b": "c",
    }
    assert parse_label_map(None) == {}


def test_commas_and_colons_in_labels_are_escaped() -> None:
    assert parse_label_map(r"rude\, mean:toxic,a\:b:c\\d") == {"rude, mean": "toxic", "a:b": "c\\d"}


@pytest.mark.parametrize("parameter", ["Toxic", "Toxic:", ":toxic", "a:b,c", "a:b\\"])
def test_a_wrong_label_map_is_refused(parameter: str) -> None:
    with pytest.raises(InvalidFields):
        parse_label_map(parameter)


def test_a_label_map_must_lead_to_labels() -> None:
    check_targets({"1": "toxic"}, DATASETS, None)
    with pytest.raises(InvalidFields) as refused:
        check_targets({"1": "toxc"}, DATASETS, "toxicity")
    assert refused.value.errors[0].detail == '"toxc" is not one of toxic, non_toxic'


def test_columns_and_labels_are_mapped() -> None:
    row = {"comment": "x", "is_toxic": " Toxic ", "score": "0.5", "other": "y"}
    assert fields(row, text="comment", label="is_toxic", label_map="Toxic:toxic", source="web") == {
        "text": "x",
        "label": "toxic",
        "score": 0.5,
        "source": "web",
    }


def test_score_and_external_id_may_be_any_column() -> None:
    row = {"text": "x", "toxicity": 0.25, "id": 17}
    assert fields(row, score="toxicity", external_id="id") == {"text": "x", "score": 0.25, "external_id": "17"}


def test_empty_cells_are_absent_fields() -> None:
    row = {"comment": "", "label": " ", "score": "", "external_id": ""}
    assert fields(row, text="comment") == {"text": ""}


def test_source_is_a_column_where_there_is_one() -> None:
    assert fields({"text": "x", "site": "forum"}, source="site")["source"] == "forum"
    assert "source" not in fields({"text": "x", "site": ""}, source="site")
    assert fields({"text": "x"}, source="site")["source"] == "site"
    assert fields({"text": "x", "source": ""}, source="web")["source"] == "web"
    assert fields({"text": "x", "source": "forum"}, source="web")["source"] == "forum"


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        (1234567890123.0, "1234567890123"),
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (Decimal("12345678901234567890.10"), "12345678901234567890.10"),
        ("Zoë".encode(), "Zoë"),
        (math.nan, None),
    ],
)
def test_words_are_exact(cell: Any, word: str | None) -> None:
    assert fields({"text": "x", "external_id": cell}).get("external_id") == word


@pytest.mark.parametrize("cell", [1e300, 2.0**53, b"\xff"])
def test_words_that_would_not_be_exact_cost_the_row(cell: Any) -> None:
    with pytest.raises(RowRefused):
        fields({"text": "x", "source": cell})


def test_metadata_is_converted_and_nothing_costs_the_row() -> None:
    cells = {
        "n": 1,
        "nan": math.nan,
        "long": 2**70,
        "price": Decimal("1.5"),
        "exact": Decimal("0.12345678901234567890123"),
        "list": ["x", 1, None],
        "struct": {"a": {"b": "c"}},
        "bytes": "Zoë".encode(),
        "endless": "x" * 9000,
        "none": None,
        "": "unnamed",
        "Unnamed: 0": 3,
        "__index_level_0__": 4,
    }
    assert fields({"text": "x"} | cells, metadata="all")["metadata"] == {
        "n": 1,
        "long": str(2**70),
        "price": 1.5,
        "exact": "0.12345678901234567890123",
        "list": '["x",1,null]',
        "struct": '{"a":{"b":"c"}}',
        "bytes": "Zoë",
        "endless": "x" * 7999 + "…",
    }


def test_a_row_of_parquet_has_one_mib_whatever_its_types() -> None:
    body = write(text=["a", "b", "c"], tags=[["x" * 10], ["y" * 1000] * 2000, None])
    batch = read(PARQUET, body, metadata="all")
    assert [row.text for row in batch.rows] == ["a", "c"]
    assert [(reject.row, reject.code) for reject in batch.rejects] == [(2, "row_too_large")]


def test_metadata_may_be_chosen() -> None:
    row = {"text": "x", "a": "1", "b,c": "2", "d": "3"}
    assert fields(row, metadata=r"a,b\,c")["metadata"] == {"a": "1", "b,c": "2"}
    with pytest.raises(ColumnsRefused, match='There is no column "e"'):
        fields(row, metadata="a,e")


def test_an_index_without_a_name_is_no_column() -> None:
    batch = read(CSV, b",text,label,\n0,one,toxic,\n1,two,,\n", metadata="all")
    assert [(row.text, row.claimed_label, row.metadata) for row in batch.rows] == [
        ("one", "toxic", "{}"),
        ("two", None, "{}"),
    ]


@pytest.mark.parametrize(
    ("columns", "parameters", "code", "words"),
    [
        ({"n": ["1"], "Comment": ["x"]}, {}, "unknown_column", 'There is no column "text". Name the column'),
        (
            {"n": ["1"], "Comment": ["x"]},
            {},
            "unknown_column",
            "text=Comment. The columns are: n (string)",
        ),
        ({"text": ["x"]}, {"label": "verdict"}, "unknown_column", 'There is no column "verdict".'),
        ({"text": [1]}, {}, "wrong_column_type", 'The column "text" is of type integer'),
        ({"text": [["x"]]}, {}, "wrong_column_type", "The columns are: text (list)."),
        ({"text": ["x"], "source": [["x"]]}, {}, "wrong_column_type", "source=COLUMN"),
        ({"text": ["x"], **{f"c{n}": [n] for n in range(101)}}, {"metadata": "all"}, "too_much_metadata", "=a,b"),
    ],
)
def test_wrong_columns_are_told_before_the_first_row(
    columns: dict[str, Any], parameters: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(ColumnsRefused) as refused:
        read(PARQUET, write(**columns), **parameters)
    assert refused.value.status == 422
    assert refused.value.code == code
    assert words in refused.value.detail


def test_a_header_alone_is_checked_as_well() -> None:
    with pytest.raises(ColumnsRefused, match="comment"):
        read(CSV, b"comment\n")


@pytest.mark.parametrize("parameters", [{}, {"label": "n"}, {"metadata": "n"}])
def test_a_column_that_is_there_twice_is_refused_if_it_is_wanted(parameters: dict[str, str]) -> None:
    body = b"text,n,n\nx,1,2\n"
    if parameters:
        with pytest.raises(ColumnsRefused) as refused:
            read(CSV, body, **parameters)
        assert refused.value.code == "duplicate_column"
    else:
        assert [row.text for row in read(CSV, body).rows] == ["x"]


def test_a_score_that_is_no_number_costs_the_row() -> None:
    with pytest.raises(RowRefused):
        fields({"text": "x", "score": "high"})


def test_a_comma_may_be_the_decimal_point() -> None:
    batch = read(CSV, "text;score\nschön;0,75\n".encode())
    assert [(row.text, row.score) for row in batch.rows] == [("schön", 0.75)]


@pytest.mark.parametrize(
    ("label", "written"), [("1", "1"), ("1.0", "1"), (1, "1"), (1.0, "1"), ("True", "true"), (True, "true")]
)
def test_labels_are_mapped_however_a_program_writes_them(label: Any, written: str) -> None:
    assert fields({"text": "x", "label": label}, label_map=f"{written}:toxic")["label"] == "toxic"


@pytest.mark.parametrize(("toxicity", "label"), [("0.5", "toxic"), (0.499, "non_toxic"), (1, "toxic")])
def test_numbers_are_mapped_by_a_threshold(toxicity: Any, label: str) -> None:
    found = fields({"text": "x", "t": toxicity}, label="t", label_map=">=0.5:toxic,<0.5:non_toxic")
    assert found["label"] == label


@pytest.mark.parametrize("body", [b"text,label\nx,1\n", write(text=["x"], label=[1])])
def test_an_unknown_label_is_told_with_its_remedy(body: bytes) -> None:
    kind = CSV if body.startswith(b"text") else PARQUET
    [reject] = read(kind, body).rejects
    assert reject.code == "unknown_label"
    assert reject.detail == 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic'


def test_a_column_may_be_label_and_score() -> None:
    body = write(id=["7"], toxicity=[0.75], text=["x"], n=[1])
    parameters = {"label": "toxicity", "score": "toxicity", "label_map": ">=0.5:toxic", "external_id": "id"}
    [row] = read(PARQUET, body, metadata="n", **parameters).rows
    assert (row.claimed_label, row.score, row.external_id, row.metadata) == ("toxic", 0.75, "7", '{"n":1}')


def test_the_remedy_escapes_the_label() -> None:
    [reject] = read(NDJSON, b'{"text": "x", "label": "a,b:c"}').rejects
    assert reject.detail.endswith(r"label_map=a\,b\:c:toxic")


def test_json_is_mapped_as_tables_are() -> None:
    line = {"comment": "x", "is_toxic": 1, "id": 7, "p": 0.5, "lang": "en", "nothing": None}
    parameters = {
        "text": "comment",
        "label": "is_toxic",
        "label_map": "1:toxic",
        "external_id": "id",
        "score": "p",
        "metadata": "all",
    }
    [row] = read(NDJSON, json.dumps(line).encode(), **parameters).rows
    assert (row.text, row.claimed_label, row.external_id, row.score) == ("x", "toxic", "7", 0.5)
    assert json.loads(row.metadata) == {"lang": "en"}


@pytest.mark.parametrize(("label", "theirs"), [(0, "0"), (True, "true"), (1.0, "1"), ("x", "x")])
def test_json_labels_are_mapped(label: Any, theirs: str) -> None:
    [row] = read(NDJSON, json.dumps({"text": "a", "label": label}).encode(), label_map=f"{theirs}:toxic").rows
    assert row.claimed_label == "toxic"


def test_a_field_that_is_unknown_is_left_out_only_if_that_is_said() -> None:
    body = b'{"text": "x", "lable": "toxic"}'
    [reject] = read(NDJSON, body).rejects
    assert (reject.code, "metadata=none leaves them out" in reject.detail) == ("extra_forbidden", True)
    assert [row.metadata for row in read(NDJSON, body, metadata="none").rows] == ["{}"]
    assert [row.metadata for row in read(NDJSON, body, metadata="all").rows] == ['{"lable":"toxic"}']


@pytest.mark.parametrize("more", [b"", b', "score": null'])
@pytest.mark.parametrize("parameters", [{}, {"metadata": "none"}])
def test_empty_words_are_absent_in_json_as_in_csv(more: bytes, parameters: dict[str, str]) -> None:
    body = b'{"text": "x", "label": " ", "source": "", "external_id": ""%s}' % more
    [row] = read(NDJSON, body, **parameters).rows
    assert (row.claimed_label, row.source, row.external_id) == (None, None, None)


def test_numbers_are_words_in_json_as_in_parquet() -> None:
    [row] = read(NDJSON, b'{"text": "x", "external_id": 9007199254740993, "source": 2.0}').rows
    assert (row.external_id, row.source) == ("9007199254740993", "2")


@pytest.mark.parametrize("value", ["1e999", "[1, -1e400]", '{"k": 1e999}'])
def test_a_number_that_overflows_is_no_infinity(value: str) -> None:
    [reject] = read(NDJSON, b'{"text": "x", "n": %s}' % value.encode(), metadata="all").rejects
    assert reject.code == "malformed_json"


def test_a_list_of_labels_costs_the_row() -> None:
    [reject] = read(NDJSON, b'{"text": "x", "label": ["toxic"]}').rejects
    assert (reject.code, reject.detail) == ("wrong_type", "/label: must be text or a number")


def test_an_array_on_one_line_is_told_with_its_remedy() -> None:
    for body in (b'[{"text": "x"}]', b'[\n{"text": "x"}\n]'):
        assert "application/json" in read(NDJSON, body).rejects[0].detail


@pytest.mark.parametrize(
    ("metadata", "expected"), [("all", {"metadata": "own", "n": 1}), ("n", {"n": 1}), ("none", {})]
)
def test_metadata_that_is_no_object_is_a_field_like_others(metadata: str, expected: dict[str, Any]) -> None:
    [row] = read(NDJSON, b'{"text": "x", "metadata": "own", "n": 1}', metadata=metadata).rows
    assert json.loads(row.metadata) == expected


def test_metadata_that_is_there_twice_costs_the_row() -> None:
    batch = read(NDJSON, b'{"text": "x", "metadata": {"n": 1}, "n": 2}', metadata="all")
    assert [reject.code for reject in batch.rejects] == ["duplicate_metadata"]


def test_a_name_in_another_charset_is_no_metadata() -> None:
    body = "text;größe\nx;1\n".encode("latin-1")
    assert [row.text for row in read(CSV, body).rows] == ["x"]
    with pytest.raises(ColumnsRefused, match="charset=windows-1252"):
        read(CSV, body, metadata="all")
    [row] = read(CSV, body, metadata="all", charset="windows-1252").rows
    assert json.loads(row.metadata) == {"größe": "1"}


def test_json_is_refused_in_another_charset() -> None:
    check_parameters(BulkParameters(charset="latin-1"), DATASETS, CSV)
    with pytest.raises(InvalidFields) as refused:
        check_parameters(BulkParameters(charset="latin-1"), DATASETS, NDJSON)
    assert refused.value.errors[0].code == "charset_not_utf8"


def test_white_space_around_a_parameter_and_a_name_makes_no_difference() -> None:
    [row] = read(CSV, b"comment , label\nx,toxic\n", text=" comment", metadata="all").rows
    assert (row.text, row.claimed_label, row.metadata) == ("x", "toxic", "{}")


def test_null_is_absent_in_metadata_too() -> None:
    [row] = read(NDJSON, b'{"text": "x", "label": null, "metadata": {"a": null, "b": 1}}').rows
    assert row.metadata == '{"b":1}'


def test_defaults_fill_what_is_absent_and_null() -> None:
    rows = read(NDJSON, b'{"text": "x", "source": null}\n{"text": "y", "source": "own"}', source="file").rows
    assert [row.source for row in rows] == ["file", "own"]


@pytest.mark.parametrize("row", [b"null", b"5", b'"x"', b"[]", b"true"])
def test_what_is_no_object_costs_the_row(row: bytes) -> None:
    [reject] = read(NDJSON, b" " + row).rejects
    assert reject.code == "not_an_object"


def test_nothing_is_quoted_where_a_dataset_redacts() -> None:
    redacting = {name: dataset.model_copy(update={"redact": ("email",)}) for name, dataset in DATASETS.items()}
    upload = BulkUpload(CSV, "identity", BulkParameters(), redacting)
    [batch] = read_batches(upload, [b"text,label\nx,jane@example.org\n"], 5000)
    assert "jane" not in batch.rejects[0].detail
