"""The program in the guide that follows the labels does what the guide says."""

import subprocess
import sys
from pathlib import Path

from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import running

GUIDE = Path(__file__).parents[3] / "docs" / "guide.md"


def test_the_program_in_the_guide_holds_all_labels(database_url: str, labeller: Labeller, tmp_path: Path) -> None:
    section = GUIDE.read_text().partition("\n### Follow changes\n")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    withdrawn = labeller.add_label("one")
    labeller.add_label("two")
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    said = tmp_path / "said"
    with running("serving_api", env, tmp_path / "log", "/readyz") as api, said.open("w") as output:
        follower = subprocess.Popen([sys.executable, "-c", program, api.url], stdout=output)
        try:
            wait_until(lambda: _last_line(said) == f"2 labels at version {labeller.newest_stamp()}")
            labeller.annotate({withdrawn: {}})
            wait_until(lambda: _last_line(said) == f"1 labels at version {labeller.newest_stamp()}")
        finally:
            follower.kill()
            follower.wait()


def _last_line(file: Path) -> str:
    return [*file.read_text().splitlines(), ""][-2:][0]
