"""The layout of the product stays within its limits."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("core", "ingestion_api", "serving_api", "uploader", "cli", "local_stack", "load_testing", "deployment")
MOST_MODULES, LEAST_LINES, MOST_LINES, MOST_FUNCTION_LINES = 12, 30, 350, 40
# Names that mean the same in every folder.
STANDARD = {
    *("main", "settings", "metrics", "dependencies", "errors", "problems", "client", "follower", "report"),
    *("endpoints", "schemas", "parameters", "service", "repository", "commands"),
}
DUCKDB_OPENER = "serving_api/replica/file.py"
KNOW_THE_FRAMEWORK = {"endpoints", "dependencies", "main"}
# Excluded: migrations never change, and version 1 stays in its original form.
LEFT_ALONE = ("core/migrations", "load_testing/version_1/services")

# Present exceptions by package. Remove them; add none.
EXCEPTIONS: dict[str, set[str]] = {
    "serving_api": {
        "web framework: serving_api/file_response.py",
    },
}


@cache
def modules() -> dict[str, str]:
    """Return the source of each product module by its path."""
    found = {}
    for program in PROGRAMS:
        for path in sorted((ROOT / program).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if path.stem not in {"__init__", "__main__"} and not name.startswith(LEFT_ALONE):
                found[name] = path.read_text()
    return found


@cache
def _nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def _functions(source: str) -> Iterator[tuple[str, int]]:
    for node in _nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1


def _check(rule: str, found: Iterable[str]) -> None:
    """Fail for violations without an exception, and for exceptions that are not needed any more."""
    known = {item for item in set().union(*EXCEPTIONS.values()) if item.startswith(f"{rule}: ")}
    over = {f"{rule}: {item}" for item in found}
    assert (sorted(over - known), sorted(known - over)) == ([], [])


def test_a_folder_holds_few_modules() -> None:
    folders = Counter(str(Path(name).parent) for name in modules())
    _check("full folder", (folder for folder, number in folders.items() if number > MOST_MODULES))


def test_a_module_is_neither_a_fragment_nor_a_heap() -> None:
    lengths = {name: source.count("\n") for name, source in modules().items()}
    _check("long module", (name for name, lines in lengths.items() if lines > MOST_LINES))
    _check("short module", (name for name, lines in lengths.items() if lines < LEAST_LINES))


def test_a_function_fits_on_a_screen() -> None:
    found = ((name, *function) for name, source in modules().items() for function in _functions(source))
    _check(
        "long function", (f"{name}: {function}" for name, function, lines in found if lines > MOST_FUNCTION_LINES)
    )


def test_a_module_name_occurs_once() -> None:
    names = Counter(Path(name).stem for name in modules())
    _check("repeated name", {name for name, number in names.items() if number > 1} - STANDARD)


def test_one_module_opens_duckdb() -> None:
    openers = _openers()
    _check("DuckDB", (name for name in openers if name != DUCKDB_OPENER))
    assert DUCKDB_OPENER in openers


def _openers() -> set[str]:
    return {
        name
        for name, source in modules().items()
        if name.startswith("serving_api/")
        for node in _nodes(source)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "duckdb.connect"
    }


def test_few_modules_know_the_web_framework() -> None:
    _check(
        "web framework",
        (
            name
            for name, source in modules().items()
            if not name.startswith("core/web/") and Path(name).stem not in KNOW_THE_FRAMEWORK
            for node in _nodes(source)
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"fastapi", "starlette"}
        ),
    )


def test_the_limits_find_what_is_over_them() -> None:
    assert list(_functions("def f():\n" + "    pass\n" * 41)) == [("f", 42)]
    with pytest.raises(AssertionError, match="full folder: new/folder"):
        _check("full folder", ["core", "new/folder"])
