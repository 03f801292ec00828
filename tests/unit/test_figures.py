"""The pictures of docs/ contain their draw.io source, show it, and name existing parts."""

import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import core.models
from local_stack.settings import StackSettings

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(DOCS.rglob("*.drawio.svg"))
VERSION_2 = DOCS / "v2" / "architecture.drawio.svg"
SVG = "{http://www.w3.org/2000/svg}"


def _cells(picture: Path) -> list[ET.Element]:
    source = ET.parse(picture).getroot().attrib["content"]  # noqa: S314 - our own
    return list(ET.fromstring(source).iter("mxCell"))  # noqa: S314 - our own


def _lines(cell: ET.Element) -> list[str]:
    """Return the lines of a cell's text, without their markup."""
    lines = re.split(r"<br ?/?>", cell.get("value", ""))
    return [html.unescape(re.sub(r"<[^>]+>", "", line)).strip() for line in lines]


def _words(picture: Path) -> str:
    return "\n".join(line for cell in _cells(picture) for line in _lines(cell))


def test_both_versions_have_a_picture_and_no_other_source() -> None:
    assert {picture.parent.name for picture in PICTURES} == {"v1", "v2"}
    assert list(DOCS.rglob("*.drawio")) == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.parent.name)
def test_the_picture_shows_what_its_source_says(picture: Path) -> None:
    shown = [text for element in ET.parse(picture).iter(f"{SVG}text") for text in element.itertext()]  # noqa: S314
    said = [line for line in _words(picture).split("\n") if line]
    assert len(said) > 20
    assert [line for line in said if line not in shown] == []


def test_the_programs_are_folders() -> None:
    named = {line.split()[0] for line in _words(VERSION_2).split("\n") if line}
    programs = {"ingestion_api", "uploader", "serving_api"}
    assert programs <= named
    assert all((DOCS.parent / program / "__main__.py").exists() for program in programs)


def test_the_tables_are_those_of_the_database() -> None:
    tables = {_lines(cell)[0] for cell in _cells(VERSION_2) if cell.get("parent") == "postgres"}
    assert {"texts", "annotations", "labels"} <= tables <= set(core.models.Base.metadata.tables)


def test_the_ports_are_the_settings() -> None:
    fields = StackSettings.model_fields
    ports = {
        name: fields[f"{setting}_port"].default
        for name, setting in {"ingestion_api": "ingestion", "serving_api": "serving", "server": "argilla"}.items()
    }
    assert {name: int(port) for name, port in re.findall(r"(\w+) :(\d+)", _words(VERSION_2))} == ports


def test_the_endpoints_are_in_the_guide() -> None:
    guide = (DOCS / "guide.md").read_text()
    endpoints = re.findall(r"\b(?:GET|POST) /[\w/]+", _words(VERSION_2))
    assert endpoints
    assert [endpoint for endpoint in endpoints if f"`{endpoint}`" not in guide] == []
