"""Croissant descriptions of snapshots and of live labels: JSON-LD by http://mlcommons.org/croissant/1.1.

Written by hand: importing mlcroissant takes seconds and loads pandas. Tests read the result with it.
"""

from datetime import date
from typing import Any
from urllib.parse import urlencode

from serving_api.columns import COLUMNS, Column
from serving_api.snapshots.card import list_languages
from serving_api.snapshots.manifest import Facts, SnapshotManifest, describe

_SAME_NAMES = """
    citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes
    isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate
    separator source subField transform
"""
# The specification's context, in full: readers compare it.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _SAME_NAMES.split()},
}
_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "float64": "cr:Float64",
    "int32": "cr:Int32",
    COLUMNS["labelled_at"].arrow_type: "sc:DateTime",
}
_USES = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
_PARQUET = "application/x-parquet"

Node = dict[str, Any]


def make_croissant(manifest: SnapshotManifest, facts: Facts, base: str | None = None) -> Node:
    """Return the JSON-LD of a snapshot: a file and a record set for each split, and the list of the splits.

    The files are below the address `base`, or without one in the snapshot's folder.
    """
    files, records = [], [_split_list(manifest)]
    for name, split in manifest.splits.items():
        file = f"{name}.parquet"
        url = f"{base}/snapshots/{manifest.name}/{file}" if base else split.path
        size = f"{split.bytes} B"
        files.append(_file(file, url, contentSize=size, sha256=split.sha256))
        # Readers rename downloaded files.
        split_field = [_split_field(name, file)] if base is None else []
        records.append(_records(f"split-{name}", file, f"The texts of the split {name}.", split_field))
    return _dataset(
        name=manifest.name,
        description=f"{manifest.rows} texts of the dataset {manifest.dataset}, labelled by people.",
        version=f"{manifest.version}.0.0",  # major: any number of labels may have changed
        datePublished=manifest.created_at.date().isoformat(),
        citeAs=f"{manifest.dataset}, snapshot {manifest.name}, SHA-256 {manifest.content_hash}",
        license=facts.license,
        inLanguage=list_languages(facts),
        distribution=files,
        recordSet=records,
    )


def make_live_croissant(dataset: str, version: int, newest: date | None, license_: str | None, base: str) -> Node:
    """Return the JSON-LD of live labels: the export, and its records."""
    name = "labels.parquet"
    return _dataset(
        name=dataset,
        description=f"The texts of the dataset {dataset} that are labelled by now. It changes with each label.",
        isLiveDataset=True,
        version=f"{version}.0.0",
        datePublished=newest.isoformat() if newest else None,  # the day of the newest label
        citeAs=f"{dataset}, live labels of version {version}",
        license=license_,
        distribution=[_file(name, f"{base}/export.parquet?{urlencode({'dataset': dataset})}")],
        recordSet=[_records("live", name, "The texts.", [])],
    )


def _dataset(**members: Any) -> Node:
    conforms = "http://mlcommons.org/croissant/1.1"
    head = {"@context": _CONTEXT, "@type": "sc:Dataset", "conformsTo": conforms}
    return head | {name: value for name, value in members.items() if value}


def _node(kind: str, id_: str, **members: Any) -> Node:
    return {"@type": f"cr:{kind}", "@id": id_, "name": id_, **members}


def _file(name: str, url: str, **members: Any) -> Node:
    return _node("FileObject", name, contentUrl=url, encodingFormat=_PARQUET, **members)


def _split_list(manifest: SnapshotManifest) -> Node:
    rows = [{"splits/name": name, "splits/use": _USES.get(name, "cr:Split")} for name in manifest.splits]
    return _node(
        "RecordSet",
        "splits",
        description="The splits; each has a record set of its name.",
        dataType="cr:Split",
        key={"@id": "splits/name"},
        field=[
            _node("Field", "splits/name", dataType="sc:Text"),
            _node("Field", "splits/use", dataType="sc:URL"),
        ],
        data=rows,
    )


def _records(id_: str, file: str, description: str, more_fields: list[Node]) -> Node:
    fields = [*more_fields, *(_field(id_, file, column) for column in COLUMNS.values())]
    return _node("RecordSet", id_, description=description, key={"@id": f"{id_}/id"}, field=fields)


def _field(records: str, file: str, column: Column) -> Node:
    return _node(
        "Field",
        f"{records}/{column.name}",
        description=describe(column),
        dataType=_TYPES[column.arrow_type],
        source={"fileObject": {"@id": file}, "extract": {"column": column.name}},
    )


def _split_field(split: str, file: str) -> Node:
    """Return the field of the split, which is read from the file's name."""
    return _node(
        "Field",
        f"split-{split}/split",
        description="The split.",
        dataType="sc:Text",
        references={"field": {"@id": "splits/name"}},
        source={
            "fileObject": {"@id": file},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": f"(?:.*/)?({split})[^/]*"},
        },
    )
