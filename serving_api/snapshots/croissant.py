"""Croissant descriptions of snapshots and of live labels: JSON-LD by http://mlcommons.org/croissant/1.1.

Written by hand: importing mlcroissant takes seconds and loads pandas. Tests read the result with it.
"""

from datetime import date
from typing import Any
from urllib.parse import urlencode

from serving_api.snapshots.card import list_languages
from serving_api.snapshots.manifest import COLUMNS, MOMENT, Facts, SnapshotManifest, SplitFile

# The specification's context, in full: readers compare it.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "float64": "cr:Float64",
    "int32": "cr:Int32",
    MOMENT: "sc:DateTime",
}
_USES = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
_SPLITS = "splits"
_VERSION = "http://mlcommons.org/croissant/1.1"


def make_croissant(manifest: SnapshotManifest, facts: Facts, base: str | None = None) -> dict[str, Any]:
    """Return the JSON-LD of a snapshot: a file and a record set for each split, and the list of the splits.

    The files are below the address `base`, or without one in the snapshot's folder.
    """
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _VERSION,
        "name": manifest.name,
        "description": f"{manifest.rows} texts of the dataset {manifest.dataset}, labelled by people.",
        "version": f"{manifest.version}.0.0",  # major: any number of labels may have changed
        "datePublished": manifest.created_at.date().isoformat(),
        "citeAs": f"{manifest.dataset}, snapshot {manifest.name}, SHA-256 {manifest.content_hash}",
        "license": facts.license,
        "inLanguage": list_languages(facts),
        "distribution": [
            _file(name, split, f"{base}/snapshots/{manifest.name}/{name}.parquet" if base else split.path)
            for name, split in manifest.splits.items()
        ],
        "recordSet": [
            _split_list(manifest),
            *(_split_records(name, in_folder=base is None) for name in manifest.splits),
        ],
    }
    return {key: value for key, value in document.items() if value}


def make_live_croissant(
    dataset: str, version: int, newest: date | None, license_: str | None, base: str
) -> dict[str, Any]:
    """Return the JSON-LD of live labels: the export, and its records."""
    name = "labels.parquet"
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _VERSION,
        "name": dataset,
        "description": f"The texts of the dataset {dataset} that are labelled by now. It changes with each label.",
        "isLiveDataset": True,
        "version": f"{version}.0.0",
        "datePublished": newest.isoformat() if newest else None,  # the day of the newest label
        "citeAs": f"{dataset}, live labels of version {version}",
        "license": license_,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": f"{base}/export.parquet?{urlencode({'dataset': dataset})}",
                "encodingFormat": "application/x-parquet",
            }
        ],
        "recordSet": [_records("live", name)],
    }
    return {key: value for key, value in document.items() if value}


def _file(name: str, split: SplitFile, url: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": _file_id(name),
        "name": _file_id(name),
        "contentUrl": url,
        "contentSize": f"{split.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": split.sha256,
    }


def _split_list(manifest: SnapshotManifest) -> dict[str, Any]:
    fields = [("name", "sc:Text"), ("use", "sc:URL")]
    rows = [{f"{_SPLITS}/name": name, f"{_SPLITS}/use": _USES.get(name, "cr:Split")} for name in manifest.splits]
    return {
        "@type": "cr:RecordSet",
        "@id": _SPLITS,
        "name": _SPLITS,
        "description": "The splits; each has a record set of its name.",
        "dataType": "cr:Split",
        "key": {"@id": f"{_SPLITS}/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"{_SPLITS}/{name}", "name": f"{_SPLITS}/{name}", "dataType": type_}
            for name, type_ in fields
        ],
        "data": rows,
    }


def _split_records(name: str, *, in_folder: bool) -> dict[str, Any]:
    records = _records(f"split-{name}", _file_id(name))
    if in_folder:  # readers rename downloaded files
        records["field"].insert(0, _split_field(name))
    return records | {"description": f"The texts of the split {name}."}


def _records(name: str, file: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": "The texts.",
        "key": {"@id": f"{name}/id"},
        "field": [_field(name, file, column) for column in COLUMNS],
    }


def _field(records: str, file: str, column: str) -> dict[str, Any]:
    id_ = f"{records}/{column}"
    return {
        "@type": "cr:Field",
        "@id": id_,
        "name": id_,
        "description": COLUMNS[column].meaning,
        "dataType": _TYPES[COLUMNS[column].type],
        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
    }


def _split_field(split: str) -> dict[str, Any]:
    """Return the field of the split, which is read from the file's name."""
    id_ = f"split-{split}/split"
    return {
        "@type": "cr:Field",
        "@id": id_,
        "name": id_,
        "description": "The split.",
        "dataType": "sc:Text",
        "references": {"field": {"@id": f"{_SPLITS}/name"}},
        "source": {
            "fileObject": {"@id": _file_id(split)},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": f"(?:.*/)?({split})[^/]*"},
        },
    }


def _file_id(split: str) -> str:
    return f"{split}.parquet"
