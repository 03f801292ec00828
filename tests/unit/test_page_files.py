"""The files of the web pages: what they load is there, and nothing in them can turn a text into markup."""

import json
import re
from pathlib import Path

import pytest

from deployment import vendor

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "core" / "web" / "static"
PAGES = {name: ROOT / name / "pages" / "static" for name in ("serving_api", "ingestion_api")}
OURS = sorted(path for folder in (SHARED, *PAGES.values()) for path in folder.glob("*.js"))

_IMPORT = re.compile(r'(?:from |import |import\()"([^"]+)"')
_NAMES = re.compile(r"^import \{([^}]*)\} from", re.MULTILINE)
# What would parse a text as markup, as a script or as a style.
_FORBIDDEN = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style=\"")


def _target(path: Path, name: str) -> Path:
    """Return the file that a module imports: below `/static`, `shared/` is a separate folder."""
    if name.startswith("./shared/"):
        return SHARED / name.removeprefix("./shared/")
    return path.parent / name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_module_loads_what_is_there(path: Path) -> None:
    for name in _IMPORT.findall(path.read_text()):
        assert name.startswith("./"), name
        assert _target(path, name).is_file(), name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_module_uses_what_it_imports(path: Path) -> None:
    script = path.read_text()
    body = "\n".join(line for line in script.splitlines() if not line.startswith("import "))
    for names in _NAMES.findall(script):
        for name in filter(None, map(str.strip, names.split(","))):
            assert re.search(rf"\b{re.escape(name)}\b", body), name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_module_makes_no_markup_of_texts(path: Path) -> None:
    assert _FORBIDDEN.search(path.read_text()) is None
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_nothing_inline(name: str) -> None:
    page = (PAGES[name] / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|javascript:", page) == []
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert _target(PAGES[name] / "x", address.replace("static/", "./", 1)).is_file(), address


@pytest.mark.parametrize("folder", vendor.FOLDERS, ids=str)
def test_a_vendored_package_is_pinned_and_has_its_licence(folder: Path) -> None:
    packages = json.loads((folder / vendor.PACKAGES).read_text())
    listed = {name for package in packages.values() for name in package["files"]}
    assert {path.name for path in folder.iterdir()} == listed | {vendor.PACKAGES}
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]), name
        assert any(one.startswith("LICENSE") for one in package["files"]), name


def test_another_archive_is_refused() -> None:
    pinned = vendor.integrity(b"the archive")
    vendor.check("preact", b"the archive", pinned)
    with pytest.raises(SystemExit, match="preact"):
        vendor.check("preact", b"another archive", pinned)


def test_imports_between_packages_get_a_path() -> None:
    assert (
        vendor.for_browsers(b'import{h}from"preact";\n//# sourceMappingURL=x.map')
        == b'import{h}from"./preact.js";\n'
    )
