"""The program in the guide that follows the labels does what the guide says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

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


def test_a_page_of_an_allowed_origin_may_listen(database_url: str, labeller: Labeller, tmp_path: Path) -> None:
    labeller.add_label("one")
    page = "http://localhost:8080"
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "HTTP_CORS_ORIGINS": page}
    with running("serving_api", env, tmp_path / "log", "/readyz") as api:
        for origin, allowed in ((page, page), ("http://evil.example", None)):
            headers = {"Accept": "text/event-stream", "Origin": origin}
            with httpx.stream("GET", f"{api.url}/changes", headers=headers) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                assert response.headers.get("access-control-allow-origin") == allowed


@pytest.mark.skipif(
    shutil.which("node") is None, reason="Node.js, which runs the guide's script, is not installed"
)
def test_the_script_in_the_guide_reports_each_change(
    database_url: str, labeller: Labeller, tmp_path: Path
) -> None:
    scripts = GUIDE.read_text().split("```javascript\n")[1:]
    [script] = [one.partition("```")[0] for one in scripts if "async function follow" in one]
    report = "(op, item) => console.log(JSON.stringify([op, item.id]))"
    call = f"follow(process.argv[2] + '/changes', 'a key', 0, {report})"
    program = tmp_path / "follow.mjs"
    program.write_text(f"{script}\n{call}")
    one, two = str(labeller.add_label("one")), labeller.add_label("two", "non_toxic")
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    said = tmp_path / "said"
    with running("serving_api", env, tmp_path / "log", "/readyz") as api, said.open("w") as output:
        follower = subprocess.Popen([shutil.which("node") or "", program, api.url], stdout=output)
        try:
            expected = [["upsert", one], ["upsert", str(two)]]
            wait_until(lambda: [json.loads(line) for line in said.read_text().splitlines()] == expected)
            labeller.annotate({two: {}})
            wait_until(lambda: _last_line(said) == json.dumps(["delete", str(two)], separators=(",", ":")))
        finally:
            follower.kill()
            follower.wait()


def _last_line(file: Path) -> str:
    return [*file.read_text().splitlines(), ""][-2:][0]
