"""Metrics, alerts, runbook and board fit together."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import uploader.metrics
from tests import board, metrics_table
from tests.unit.promql import grouped, selectors

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RULES = [Path(__file__).parent / name for name in ("alerts_test.yml", "slow_alerts_test.yml")]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

# Prometheus' own, of each target.
_TARGET_LABELS = {"job", "instance"}
_HISTOGRAM = ("_bucket", "_sum", "_count")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is Prometheus' own")


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _queries() -> Iterator[tuple[str, str]]:
    """Yield every expression, with where it is."""
    for alert in _alerts():
        yield alert["alert"], alert["expr"]
    for panel in json.loads(board.BOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def _series() -> dict[str, set[str]]:
    """Return the labels of every series that a program shows, by its name."""
    shown: dict[str, set[str]] = {"up": set()}
    for name, metric in metrics_table.metrics().items():
        labels = set(metric._labelnames)
        match metric._type:
            case "histogram":
                shown |= {f"{name}{part}": labels | {"le"} for part in _HISTOGRAM}
            case "stateset":
                shown[name] = labels | {name}
            case _:
                shown[name] = labels
    return shown


def _code() -> list[str]:
    folders = ("core", "ingestion_api", "uploader", "serving_api")
    return [file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py")]


def test_the_page_lists_the_metrics_as_they_are() -> None:
    assert metrics_table.PAGE.read_text() == metrics_table.page(), "run python -m tests.metrics_table"


def test_metrics_have_one_naming_scheme() -> None:
    for name, metric in metrics_table.metrics().items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), name
        assert (metric._type == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|megabytes|percent)\b", name), name
        assert not {"job", "instance", "le", "path", "id", "text_id"} & set(metric._labelnames), name
        assert metric._documentation, name


def test_what_programs_register_is_in_the_tables() -> None:
    kinds = re.compile(r"\b(?:Counter|Gauge|Histogram|Enum|Summary|Info)\(\s*\"([a-z_]+)\"")
    defined = [name for code in _code() if "prometheus_client" in code for name in kinds.findall(code)]
    assert sorted(defined) == sorted(metrics_table.metrics())


def test_what_alerts_count_is_there_before_it_happens() -> None:
    uploader.metrics.begin("a")
    uploader.metrics.begin_model("a")
    shown = [sample for family in REGISTRY.collect() for sample in family.samples]
    for alert in _alerts():
        for name, matched in selectors(alert["expr"]):
            if name.endswith("_total"):
                values = [s.labels for s in shown if s.name == name]
                assert all(any(re.fullmatch(v, s.get(k, "")) for s in values) for k, v in matched.items()), name
                assert values, name


def test_the_board_is_what_its_script_says() -> None:
    assert board.BOARD.read_text() == board.make(), "run python -m tests.board"


def test_alerts_and_board_read_what_there_is() -> None:
    series = _series()
    for place, query in _queries():
        read = selectors(query)
        assert read, place
        known = _TARGET_LABELS.union(*(series[name] for name, _ in read))
        for name, matched in read:
            assert matched.keys() <= series[name] | _TARGET_LABELS, (place, name)
        assert grouped(query) <= known, place


def test_outcomes_and_routes_that_are_asked_for_are_written_in_the_code() -> None:
    code = "".join(_code())
    for place, query in _queries():
        for _, matched in selectors(query):
            for label in ("outcome", "result", "route"):
                for value in re.split(r"\|(?!/\.)", matched.get(label, "")):
                    assert not value or "*" in value or f'"{value}"' in code, (place, value)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = [alert["alert"] for alert in _alerts()]
    section = OPERATIONS.partition("\n## Runbook\n")[2].partition("\n## Logs\n")[0]
    assert sorted(re.findall(r"^### (\w+)$", section, re.MULTILINE)) == sorted(names)
    for alert in _alerts():
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
    for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        assert all(word in part for word in ("**Means.**", "**See", "**Do.**")), part.split()[0]


def test_metrics_and_settings_that_the_page_names_are_there() -> None:
    names = set(re.findall(r"`((?:http|ingestion|uploader|serving)_[a-z_]+)(?:\{|`)", OPERATIONS))
    programs = {"ingestion_api", "serving_api"}
    assert {name for name in names if name.removesuffix("_count") not in metrics_table.metrics()} <= programs
    configuration = (ROOT / "docs" / "configuration.md").read_text()
    for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)", OPERATIONS):
        assert f"`{name}`" in configuration or name == "DATA_DIR", name


def test_prometheus_asks_every_program() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    asked = {one["names"][0]: one["port"] for job in config["scrape_configs"] for one in job["dns_sd_configs"]}
    assert asked == {"ingestion": 8080, "uploader": 8081, "serving": 9000}


@needs_promtool
def test_prometheus_reads_its_files(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    config = (MONITORING / "prometheus.yml").read_text().replace("/run/secrets/metrics_token", str(token))
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    _promtool("check", "config", str(tmp_path / "prometheus.yml"))


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    _promtool("test", "rules", *map(str, RULES))


@needs_promtool
def test_prometheus_reads_the_queries_of_the_board(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "1m") for _, query in _queries()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    _promtool("check", "rules", str(file))


def _promtool(*arguments: str) -> None:
    result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
