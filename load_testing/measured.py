"""`python -m load_testing.measured`: takes the newest results over into measured/, and writes README.md's figures.

Each figure of the README is made here, from a file in measured/; a test makes them again and compares.
"""

import json
import re
import shutil
from pathlib import Path

from load_testing.compare import report
from load_testing.compare.results import read_rows
from load_testing.reports import plots
from load_testing.reports.measured_blocks import BLOCKS, PROJECT_BLOCKS, read_json, steps_rows

HERE = Path(__file__).parent
MEASURED = HERE / "measured"
README = HERE / "README.md"
PROJECT_README = HERE.parent / "README.md"
_BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TAKEN = {
    "compare": ("steps.csv", "failures.csv", "texts.csv", "settings.json"),
    "steps": ("by_users.csv", "by_name.csv", "processors.csv", "report.json"),
    "sizing": ("sizing.csv", "settings.json"),
}
# What is kept of a load test's report: the rest is large.
_KEPT = ("settings", "knee_users")


def main() -> None:
    """Take over what was measured last, draw it, and write it into the README."""
    for name in _TAKEN:
        take_over(name, HERE / "results" / name, MEASURED / name)
    for file, content in pictures(MEASURED).items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    for readme in (README, PROJECT_README):
        readme.write_text(page(readme.read_text(), MEASURED))


def take_over(name: str, results: Path, into: Path) -> None:
    """Copy the files of the newest whole result, if there is one."""
    whole = [folder for folder in results.glob("*") if all((folder / file).is_file() for file in _TAKEN[name])]
    if not whole:
        return
    newest = max(whole, key=lambda folder: folder.name)
    into.mkdir(parents=True, exist_ok=True)
    for file in _TAKEN[name]:
        shutil.copy(newest / file, into / file)
    if name == "steps":
        told = json.loads((into / "report.json").read_text())
        kept = {key: told[key] for key in _KEPT}
        (into / "report.json").write_text(json.dumps(kept, indent=2) + "\n")


def pictures(measured: Path) -> dict[Path, str]:
    """Return each picture of the README, by its file."""
    think_seconds = read_json(measured / "compare" / "settings.json")["think_seconds"]
    drawn = report.pictures(steps_rows(measured), think_seconds)
    made = {measured / "compare" / f"{name}.svg": picture for name, picture in drawn.items()}
    by_users = measured / "steps" / "by_users.csv"
    users = read_rows(by_users) if by_users.is_file() else []
    made[measured / "steps" / "latency_by_users.svg"] = plots.latency_by_users(users)
    made[measured / "steps" / "throughput_by_users.svg"] = plots.throughput_by_users(users)
    return made


def page(text: str, measured: Path) -> str:
    """Return the README with its figures as they were measured.

    Raises:
        KeyError: it asks for a block that there is not.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_content(block[2], measured)}\n{block[3]}", text)


def _content(name: str, measured: Path) -> str:
    try:
        return (BLOCKS | PROJECT_BLOCKS)[name](measured)
    except FileNotFoundError:
        return "Not measured yet: `make measure` does it.\n"


if __name__ == "__main__":
    main()
