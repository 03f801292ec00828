"""Asks OSV for known holes of what the platform runs on: `python -m tests.supply_chain.vulnerabilities`.

Exit code 0: none but those that docs/supply_chain.md lists; 1: there are others; 2: OSV did not answer for all
components, so nothing is proven.
"""

import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from tests.supply_chain.components import Component, all_components
from tests.supply_chain.locks import ROOT

SERVICE = "https://api.osv.dev/v1/query"
PAGE = ROOT / "docs" / "supply_chain.md"
_AT_ONCE = 8
_SECONDS = 15
_HOLE = re.compile(r"CVE-\d+-\d+|GHSA(?:-\w{4}){3}")


@dataclass(frozen=True)
class Hole:
    """A known vulnerability of a component; `ids` are all names that it has."""

    component: Component
    ids: frozenset[str]
    summary: str

    def __str__(self) -> str:
        return f"{self.component}: {', '.join(sorted(self.ids))} {self.summary}".rstrip()


def ask(service: str, components: Iterable[Component]) -> list[Hole]:
    """Return the known holes of all components.

    Raises:
        httpx.HTTPError: the service does not answer, or refuses a question.
        ValueError: an answer is not OSV's.
    """
    with httpx.Client(timeout=_SECONDS, transport=httpx.HTTPTransport(retries=2)) as client:

        def ask_one(component: Component) -> list[Hole]:
            return [_hole(component, found) for found in _query(client, service, component)]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [hole for holes in pool.map(ask_one, components) for hole in holes]


def _query(client: httpx.Client, service: str, component: Component) -> list[dict[str, Any]]:
    package = {"name": component.name, "ecosystem": component.ecosystem}
    question: dict[str, Any] = {"package": package, "version": component.version}
    found: list[dict[str, Any]] = []
    while True:
        answer = client.post(service, json=question).raise_for_status().json()
        if not isinstance(answer, dict):
            raise ValueError(f"not an answer of OSV: {answer!r}")  # noqa: TRY004 - as wrong JSON is
        found += answer.get("vulns", [])
        if not (token := answer.get("next_page_token")):
            return found
        question["page_token"] = token


def _hole(component: Component, found: dict[str, Any]) -> Hole:
    ids = frozenset({found["id"], *found.get("aliases", [])})
    return Hole(component, ids, found.get("summary") or found.get("details", "")[:100])


def accepted_holes(page: str) -> dict[tuple[str, str], set[str]]:
    """Return the holes that the page lists, by name and version of the component."""
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| ([^|]*) \|", page, re.MULTILINE)
    return {(name, version): set(_HOLE.findall(holes)) for name, version, holes in rows}


def main() -> int:
    """Query OSV, and print known vulnerabilities."""
    service = os.environ.get("VULNERABILITY_SERVICE", SERVICE)
    components = all_components()
    _print(f"Asking about {len(components)} components")
    try:
        holes = ask(service, components)
    except (httpx.HTTPError, ValueError) as error:
        _print(f"NOT CHECKED: {service} does not answer ({type(error).__name__}: {error}).")
        _print("Nothing is known of vulnerabilities. Run it where that address is reachable.")
        return 2
    accepted = accepted_holes(PAGE.read_text())
    new = [hole for hole in holes if not hole.ids & accepted.get(hole.component.key, set())]
    for hole in holes:
        _print(f"{'NEW' if hole in new else 'listed'}: {hole}")
    _print(f"{len(new)} holes are not listed in docs/supply_chain.md; {len(holes) - len(new)} are.")
    return 1 if new else 0


def _print(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
