"""Tests use public names: a private name may change its meaning without any user noticing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_PACKAGES = "core|ingestion_api|uploader|serving_api|cli|local_stack|load_testing|deployment"
_PRIVATE = re.compile(r"_(?!_)\w+")
_NO_PRIVATE_NAMES = {"_replace", "_asdict", "_exit"}  # of named tuples, and of os
_OF_LIBRARIES = {"metrics_table.py", "test_monitoring.py"}  # prometheus_client says nothing else of a metric

# Each for a reason that is said there.
_ALLOWED = {
    "integration/uploader/test_forgetting.py: uploader.forgetting._take_out_unindexed",
    "unit/serving_api/search_world.py: self.replica._load",
}


def test_tests_import_patch_and_call_no_private_names_but_those_listed() -> None:
    found = {
        f"{path.relative_to(_TESTS)}: {name}"
        for path in _TESTS.rglob("*.py")
        if path.name not in _OF_LIBRARIES
        for name in _private_names(ast.parse(path.read_text()))
    }
    assert found == _ALLOWED


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if re.match(rf"({_PACKAGES})\b", module):
                yield from (f"{module}.{one.name}" for one in names if _PRIVATE.fullmatch(one.name))
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name) if _PRIVATE.fullmatch(name) and name not in _NO_PRIVATE_NAMES:
                yield ast.unparse(node)
            case ast.Constant(value=str(text)) if re.fullmatch(rf"({_PACKAGES})(\.\w+)*\._\w+", text):
                yield text
            case ast.Call(
                func=ast.Attribute(attr="setattr"), args=[target, ast.Constant(value=str(name)), *_]
            ) if _PRIVATE.fullmatch(name):
                yield f"{ast.unparse(target)}.{name}"
