"""Locust's page, as `locust` in load_testing/ opens it."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from local_stack.ports import reserved_ports
from tests.integration.load_testing.running import ROOT
from tests.integration.load_testing.small_platform import small_platform
from tests.waiting import wait_for


def _is_open(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_users_and_shape_are_chosen_on_the_page(tmp_path: Path) -> None:
    with reserved_ports(1) as [port], small_platform() as platform, (tmp_path / "log").open("wb") as log:
        page = f"http://127.0.0.1:{port}"
        locust = subprocess.Popen(
            [sys.executable, "-m", "locust", "--web-host", "127.0.0.1", "--web-port", str(port)],
            cwd=ROOT / "load_testing",
            env={"INGESTION_URL": platform.url, "SERVING_URL": platform.url},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: locust.poll() is not None or _is_open(page))
            found = re.search(r"templateArgs = (.*?)\s*</script>", httpx.get(page).text, re.DOTALL)
            assert found, (tmp_path / "log").read_text()
            offered = json.loads(found[1].strip().rstrip(";"))
            assert offered["show_userclass_picker"]
            assert offered["available_user_classes"] == ["IngestionUser", "ServingUser"]
            assert offered["available_shape_classes"] == ["Default", "Plan"]
            assert offered["extra_options"]["shape"]["choices"] == ["ramp", "soak", "spike", "steps"]
            assert (offered["num_users"], offered["spawn_rate"]) == (50, 1)

            chosen = {"user_classes": "IngestionUser", "shape_class": "Plan", "shape": "soak", "user_count": 3}
            started = httpx.post(f"{page}/swarm", data=chosen | {"spawn_rate": 1, "think_seconds": 0.02}).json()
            assert started["success"], started
            wait_for(lambda: len(platform.texts) > 20)
            stats = httpx.get(f"{page}/stats/requests").json()
            assert stats["user_count"] == 3
            assert all(row["name"].startswith("ingestion: ") for row in stats["stats"] if row["method"])
            httpx.get(f"{page}/stop")
        finally:
            locust.send_signal(signal.SIGTERM)
            code = locust.wait(30)
    assert code == 0, (tmp_path / "log").read_text()
    assert "Looking up" in (tmp_path / "log").read_text()
