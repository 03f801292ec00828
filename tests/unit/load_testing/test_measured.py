"""The figures of load_testing/README.md are those of the files in load_testing/measured."""

import re
from pathlib import Path

import pytest

from load_testing import measured
from load_testing.measured import BLOCKS, PROJECT_BLOCKS

TEXT = measured.README.read_text()
AGAIN = "run python -m load_testing.measured"


@pytest.mark.parametrize("readme", [measured.README, measured.PROJECT_README], ids=["load_testing", "project"])
def test_the_page_is_what_was_measured(readme: Path) -> None:
    text = readme.read_text()
    assert measured.page(text, measured.MEASURED) == text, AGAIN


def test_each_picture_is_drawn_from_its_rows() -> None:
    for file, content in measured.pictures(measured.MEASURED).items():
        assert file.read_text() == content, f"{file}: {AGAIN}"
        assert str(file.relative_to(measured.HERE)) in TEXT or file.parent.name == "compare", file


def test_the_page_has_each_block_once() -> None:
    assert sorted(re.findall(r"<!-- measured: (\w+) -->", TEXT)) == sorted(BLOCKS)
    assert TEXT.count("<!-- end -->") == len(BLOCKS)
    project = measured.PROJECT_README.read_text()
    assert re.findall(r"<!-- measured: (\w+) -->", project) == [*PROJECT_BLOCKS]


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-")
        for h in re.findall(r"^#+ (.*)", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        file, _, heading = target.partition("#")
        assert (measured.HERE / file).exists(), target
        assert not heading or heading in headings, target


def test_no_result_is_told_outside_of_the_blocks() -> None:
    """Between "Version 1" and "Repeat the measurements" only blocks hold units of measurement."""
    told = TEXT.partition("\n## Version 1\n")[2].partition("\n## Repeat the measurements\n")[0]
    prose = re.sub(r"<!-- measured: .*?<!-- end -->", "", told, flags=re.DOTALL)
    assert re.findall(r"\d[\d,.]*\s?(?:ms|s|%|MiB|GiB|/s|requests|texts|users)\b", prose) == []


def test_a_block_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        measured.page("<!-- measured: nothing -->\n<!-- end -->", measured.MEASURED)


def test_the_newest_whole_result_is_taken_over(tmp_path: Path) -> None:
    for name, files in {"2026-01": ("sizing.csv", "settings.json"), "2026-02": ("sizing.csv",)}.items():
        (tmp_path / "results" / name).mkdir(parents=True)
        for file in files:
            (tmp_path / "results" / name / file).write_text(name)
    measured.take_over("sizing", tmp_path / "results", tmp_path / "measured")
    assert (tmp_path / "measured" / "sizing.csv").read_text() == "2026-01"
    measured.take_over("sizing", tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    empty = "<!-- measured: knee -->\n<!-- end -->"
    assert "\nNot measured yet: `make measure` does it.\n" in measured.page(empty, tmp_path)
