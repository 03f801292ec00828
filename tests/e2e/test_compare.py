"""`make compare`, in short, on both real versions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from load_testing.version_1.baseline import find_java
from local_stack import StackError

ROOT = Path(__file__).parents[2]


def _has_java() -> bool:
    try:
        find_java()
    except StackError:
        return False
    return True


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(not _has_java(), reason="version 1 needs a whole Java 17")
def test_version_1_loses_texts_and_version_2_none(tmp_path: Path) -> None:
    options = ["--steps", "1", "50", "--seconds", "5", "--results", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "load_testing.compare", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [folder] = tmp_path.iterdir()
    found = json.loads((folder / "compare.json").read_text())
    old, new = found["texts"]
    assert old["failed"] > old["sent"] / 2
    assert old["sent_again_doubled"] == old["sent_again"] > 0
    assert old["outage_posts_answered"] == old["outage_gets_answered"] == 0
    assert any("LiveError" in row["reason"] for row in found["failures"] if row["version"] == "1")
    assert new["lost"] == new["failed"] == new["doubled"] == new["sent_again_doubled"] == 0
    assert new["in_postgres"] == new["stored"] == new["sent"] > old["stored"]
    assert new["outage_posts_stored"] == new["outage_posts_answered"] == new["outage_posts"]
    assert new["outage_gets_answered"] == new["outage_gets"]
    assert (folder / "serving_latency.svg").is_file()
