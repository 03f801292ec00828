"""Draws each .drawio of docs/ as the .svg beside it, unless something is wrong with its layout."""

import sys
from pathlib import Path

from tests.figures.layout import problems
from tests.figures.picture import svg
from tests.figures.source import read

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    for source in sorted(DOCS.rglob("*.drawio")):
        figure = read(source)
        if found := problems(figure):
            sys.exit(f"{source}:\n" + "\n".join(found))
        source.with_suffix(".svg").write_text(svg(figure))


if __name__ == "__main__":
    main()
