"""What OpenAPI says of the dataset viewer."""

from typing import Any

from core.web.openapi import Responses, answer, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.texts.documentation import EXAMPLE_ITEM, REPLICA_HEADERS
from serving_api.viewer import schemas
from serving_api.viewer.columns import LIVE, feature_types, features

_SPLIT = {"dataset": "toxicity", "config": "toxicity-2026-11", "split": "train"}
_LIVE = {"dataset": "toxicity", "config": "live", "split": "train"}
_ROW = EXAMPLE_ITEM | {
    "votes": '{"toxic": 3, "non_toxic": 1}',
    "metadata": '{"thread": 4}',
    "enrichment": "{}",
}
_ROWS = [{"row_idx": 234, "row": _ROW, "truncated_cells": []}]
_NOTHING: dict[str, Any] = {"pending": [], "failed": []}
_PAGE = {
    "features": features(LIVE),
    "rows": _ROWS,
    "num_rows_total": 4711,
    "num_rows_per_page": 100,
    "partial": False,
}
_BYTES = {
    "num_bytes_parquet_files": 128000,
    "num_bytes_memory": 402112,
    "num_rows": 800,
    "estimated_num_rows": None,
}
_NAME = {"dataset": "toxicity", "config": "toxicity-2026-11"}
_CONFIG_SIZE = _NAME | _BYTES | {"num_columns": len(LIVE)}
_SIZE = {
    "size": {
        "dataset": {"dataset": "toxicity"} | _BYTES,
        "configs": [_CONFIG_SIZE],
        "splits": [_CONFIG_SIZE | {"split": "train"}],
    },
    **_NOTHING,
    "partial": False,
}
_INFO = {
    "description": "Decide whether the text is **toxic**.",
    "citation": "",
    "homepage": "",
    "license": "",
    "features": feature_types(LIVE),
    "builder_name": "parquet",
    "dataset_name": "toxicity",
    "config_name": "toxicity-2026-11",
    "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
    "splits": {
        "train": {"name": "train", "num_bytes": 402112, "num_examples": 800, "dataset_name": "toxicity"},
    },
    "download_size": 128000,
    "dataset_size": 402112,
}
_STATISTICS = {
    "num_examples": 800,
    "statistics": [
        {
            "column_name": "label",
            "column_type": "string_label",
            "column_statistics": {
                "nan_count": 3,
                "nan_proportion": 0.00375,
                "no_label_count": 0,
                "no_label_proportion": 0.0,
                "n_unique": 2,
                "frequencies": {"non_toxic": 531, "toxic": 266},
            },
        },
        {
            "column_name": "annotations",
            "column_type": "int",
            "column_statistics": {
                "nan_count": 0,
                "nan_proportion": 0.0,
                "min": 1,
                "max": 3,
                "mean": 2.0125,
                "median": 2.0,
                "std": 0.81201,
                "histogram": {"hist": [251, 288, 261], "bin_edges": [1, 2, 3, 3]},
            },
        },
    ],
    "partial": False,
}
_URL = "http://127.0.0.1:9000/snapshots/toxicity-2026-11/train.parquet"
_PARQUET = {
    "parquet_files": [_SPLIT | {"url": _URL, "filename": "train.parquet", "size": 128000}],
    **_NOTHING,
    "partial": False,
}

_CROISSANT = {
    "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.1",
    "name": "toxicity-2026-11",
    "description": "800 texts of the dataset toxicity, labelled by people.",
    "distribution": [{"@type": "cr:FileObject", "@id": "train.parquet", "contentUrl": _URL}],
    "recordSet": [{"@type": "cr:RecordSet", "@id": "split-train", "name": "split-train"}],
}

_ETAG = {"ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"')}
_OF_LIVE = {
    name: described | {"description": f"{described['description']} Of live labels only."}
    for name, described in REPLICA_HEADERS.items()
    if name.startswith("X-")
}
_HEADERS = {"Cache-Control": REPLICA_HEADERS["Cache-Control"]} | _OF_LIVE | _ETAG


def _refusal(described: dict[str, Any], error: str, code: str) -> dict[str, Any]:
    """Add what the original sends in a refusal."""
    content = {
        kind: media | {"example": media["example"] | {"error": error}}
        for kind, media in described["content"].items()
    }
    more = {"X-Error-Code": header("The original's name of it.", code)}
    return described | {"content": content, "headers": described.get("headers", {}) | more}


def _wrong(parameter: str, code: str, detail: str) -> dict[str, Any]:
    wrong = wrong_parameter(parameter, code, detail)
    return _refusal(wrong, f"Parameter '{parameter}': {detail}", "InvalidParameter")


_NO_CONFIG = "There is no config 'x' of toxicity: it is live, or the name of a snapshot."
_TOO_BUSY = "Too many queries are waiting."
_LENGTH = _wrong("length", "less_than_equal", "Input should be less than or equal to 100")
_UNKNOWN = _wrong("x", "extra_forbidden", "Extra inputs are not permitted")
_WHERE = _wrong(
    "where", "invalid_where", "At character 1: there is no column 'lable'; there are: id, dataset, text, label, …"
)


def _responses(
    model: type, example: Any, wrong: dict[str, Any] = _UNKNOWN, headers: dict[str, Any] | None = None
) -> Responses:
    return {
        200: answer("Successful Response", example, model=model, headers=headers or _HEADERS),
        304: {"description": "The client holds this answer already.", "headers": headers or _HEADERS},
        400: problem(400, "malformed_query", "The query string is not UTF-8."),
        **key_refusals("read"),
        404: _refusal(problem(404, "config_not_found", _NO_CONFIG), _NO_CONFIG, "ResponseNotFound"),
        422: wrong,
        503: _refusal(unavailable("too_busy", _TOO_BUSY), _TOO_BUSY, "ResponseNotReady"),
    }


_WITHOUT_REPLICA = {name: described for name, described in _HEADERS.items() if not name.startswith("X-")}
_EVERYTHING = dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True)
_FIRST = _LIVE | {"features": features(LIVE), "rows": _ROWS, "truncated": True}

RESPONSES: dict[str, Responses] = {
    "/is-valid": _responses(schemas.Validity, _EVERYTHING, headers=_WITHOUT_REPLICA),
    "/splits": _responses(schemas.Splits, {"splits": [_LIVE, _SPLIT], **_NOTHING}, headers=_WITHOUT_REPLICA),
    "/first-rows": _responses(schemas.FirstRows, _FIRST),
    "/rows": _responses(schemas.RowsPage, _PAGE, _LENGTH),
    "/search": _responses(schemas.RowsPage, _PAGE, _LENGTH),
    "/filter": _responses(schemas.RowsPage, _PAGE, _WHERE),
    "/parquet": _responses(schemas.ParquetFiles, _PARQUET, headers=_WITHOUT_REPLICA),
    "/croissant": _responses(schemas.Croissant, _CROISSANT, headers=_WITHOUT_REPLICA),
    "/size": _responses(schemas.Size, _SIZE, headers=_WITHOUT_REPLICA),
    "/info": _responses(schemas.Info, {"dataset_info": _INFO, "partial": False}, headers=_WITHOUT_REPLICA),
    "/statistics": _responses(schemas.Statistics, _STATISTICS),
}
