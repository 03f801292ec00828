"""The pictures of docs/ are made from the sources beside them, can be read, and name what there is."""

import re
from collections import Counter
from pathlib import Path

import pytest

import core.models
from local_stack.settings import StackSettings
from tests.figures.__main__ import DOCS
from tests.figures.layout import problems
from tests.figures.picture import svg
from tests.figures.source import Box, Figure, FigureError, Line, read

SOURCES = sorted(DOCS.rglob("*.drawio"))
VERSION_2 = DOCS / "v2" / "architecture.drawio"


def _words(figure: Figure) -> str:
    items: list[Box | Line] = [*figure.boxes, *figure.lines]
    return "\n".join(line.text for item in items for line in item.lines)


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    source = VERSION_2.read_text()
    assert source.count(old) == 1, old
    changed = tmp_path / "changed.drawio"
    changed.write_text(source.replace(old, new))
    return changed


def test_both_versions_have_a_figure() -> None:
    assert {source.parent.name for source in SOURCES} == {"v1", "v2"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_the_picture_is_what_its_source_says(source: Path) -> None:
    picture = source.with_suffix(".svg").read_bytes()
    assert picture == svg(read(source)).encode(), "run python -m tests.figures"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_nothing_overlaps_and_text_fits(source: Path) -> None:
    assert problems(read(source)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_every_mark_is_explained_once(source: Path) -> None:
    marks = [(box.lines[0].text, box.parent == "legend") for box in read(source).boxes if box.is_mark]
    assert set(Counter(marks).values()) == {1}
    assert {text for text, explains in marks if explains} == {text for text, explains in marks if not explains}


def test_the_programs_are_folders() -> None:
    named = {line.text.split()[0] for box in read(VERSION_2).boxes for line in box.lines[:1]}
    programs = {"ingestion_api", "uploader", "serving_api"}
    assert programs <= named
    assert all((DOCS.parent / program / "__main__.py").exists() for program in programs)


def test_the_tables_are_those_of_the_database() -> None:
    tables = {box.lines[0].text for box in read(VERSION_2).boxes if box.parent == "postgres"}
    assert {"texts", "annotations", "labels"} <= tables <= set(core.models.Base.metadata.tables)


def test_the_ports_are_the_settings() -> None:
    fields = StackSettings.model_fields
    ports = {
        name: fields[f"{setting}_port"].default
        for name, setting in {"ingestion_api": "ingestion", "serving_api": "serving", "server": "argilla"}.items()
    }
    assert {name: int(port) for name, port in re.findall(r"(\w+) :(\d+)", _words(read(VERSION_2)))} == ports


def test_the_endpoints_are_in_the_guide() -> None:
    guide = (DOCS / "guide.md").read_text()
    endpoints = re.findall(r"\b(?:GET|POST) /[\w/]+", _words(read(VERSION_2)))
    assert endpoints
    assert [endpoint for endpoint in endpoints if f"`{endpoint}`" not in guide] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b&gt;uploader&lt;", f"b&gt;{'uploader ' * 4}&lt;", "the text of uploader does not fit"),
        ('x="620" y="60"', 'x="620" y="130"', "annotators and argilla overlap"),
        ('x="620" y="60"', 'x="900" y="60"', "annotators is not within the page"),
        ('x="800" y="670"', 'x="300" y="590"', "feed goes through snapshots"),
        ('x="10" y="-14" as="offset"', 'x="10" y="140" as="offset"', "legend and the label of snapshot overlap"),
        ('<mxPoint x="890" y="800" />', '<mxPoint x="890" y="860" />', "files goes through legend"),
    ],
)
def test_a_bad_layout_is_noticed(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in "\n".join(problems(read(_changed(tmp_path, old, new))))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('source="clients"', 'source="customers"', "post leads from or to customers, which is no box"),
        ('source="clients" ', "", "post leads from or to nothing"),
        ("exitX=1;exitY=0.5;entryX=0;entryY=0.3928571;", "", "post: give its ends fixed points"),
        ("b&gt;trainers&lt;/b", "i&gt;trainers&lt;/i", "trainers: only <br> between lines"),
        ('<mxCell id="0" />', '<mxCell id="0">', "is not XML"),
        ("startArrow=block;", "startArrow=block;curved=1;", "claim: tests/figures cannot draw curved"),
        ('id="trainers"', 'id="clients"', "two cells have the same id"),
        ('id="post"', 'id="push"', "cannot open cells with the id push"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(FigureError) as refusal:
        read(_changed(tmp_path, old, new))
    assert said in str(refusal.value)


def test_a_compressed_source_is_refused(tmp_path: Path) -> None:
    compressed = tmp_path / "compressed.drawio"
    compressed.write_text('<mxfile><diagram name="Page-1">jZJNb4MwDIZ</diagram></mxfile>')
    with pytest.raises(FigureError, match="save it uncompressed"):
        read(compressed)
