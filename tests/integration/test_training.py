"""The worked example in docs/training.md, as it stands: from the shipped sample to a trained classifier."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from core.settings import DatabaseSettings
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import Program, running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MOST_LINES = 20


class Page:
    """Runs what the page shows, with the addresses of this test's programs."""

    def __init__(self, ingestion: Program, serving: Program, folder: Path) -> None:
        self._addresses = {"http://127.0.0.1:8080": ingestion.url, "http://127.0.0.1:9000": serving.url}
        # No server listens at that endpoint: a program that phones home fails.
        self._env = os.environ | {
            "INGESTION_URL": ingestion.url,
            "SERVING_URL": serving.url,
            "DATA_DIR": str(folder),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HOME": str(folder / "hub"),
        }

    def run_command(self, command: str) -> str:
        """Run a block of shell commands."""
        return self._run(["bash", "-euc", command.replace("pipenv run annotate", f"{sys.executable} -m cli")])

    def run_programs(self, programs: list[str]) -> str:
        """Run Python programs one after the other, in one process, as imports take long; a warning is an error."""
        each = f"for program in {programs!r}: exec(program, {{}})"
        return self._run([sys.executable, "-W", "error", "-c", each])

    def _run(self, words: list[str]) -> str:
        for written, ours in self._addresses.items():
            words = [word.replace(written, ours) for word in words]
        result = subprocess.run(
            words, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


def test_the_page_leads_to_a_classifier(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "REPLICA_POLL_SECONDS": "0.05"}
    ingest, stats, snapshot = COMMANDS
    with (
        running("ingestion_api", env, tmp_path / "ingestion.log") as ingestion,
        running("serving_api", env, tmp_path / "serving.log", "/readyz") as serving,
    ):
        page = Page(ingestion, serving, tmp_path)
        page.run_command(ingest)
        assert label_as_claimed(database_url) == 20
        wait_until(lambda: httpx.get(f"{serving.url}/stats").json()["total"] == 20)
        assert '"total":20' in page.run_command(stats)
        assert '"name":"sample"' in page.run_command(snapshot)
        said = page.run_programs(PROGRAMS)
        assert re.search(r"accuracy .* 6\n", said)
        assert re.search(r"\n\['toxic'\]\n\d+% of 6 are right\n$", said)


def label_as_claimed(database_url: str) -> int:
    """Stand in for annotators, who say what the sample says; return how many texts there are."""
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    with engine.connect() as connection:
        claims = connection.execute(text("select id, claimed_label from texts")).all()
    Labeller(engine).annotate({id_: {"ada": label} for id_, label in claims})
    engine.dispose()
    return len(claims)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_is_short(program: str) -> None:
    assert len([line for line in program.splitlines() if line.strip()]) <= MOST_LINES
