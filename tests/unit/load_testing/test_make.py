"""`make loadtest` hands its variables on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from load_testing.__main__ import main

ROOT = Path(__file__).parents[3]
VARIABLES = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "load_testing" / "README.md").read_text(), re.MULTILINE)
NAMES = re.findall(r"[A-Z_]+", " ".join(VARIABLES))


def test_each_variable_of_the_readme_is_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"{name}={number}" for number, name in enumerate(NAMES)]
    made = subprocess.run(["make", "-n", "loadtest", *given], cwd=ROOT, capture_output=True, text=True, check=True)
    command = made.stdout.splitlines()[-1]
    wanted = {f"--{name.lower().replace('_', '-')} {number}" for number, name in enumerate(NAMES)}
    assert len(wanted) == 13
    assert set(re.findall(r"--\S+ \d+", command)) == wanted

    monkeypatch.setattr(sys, "argv", ["load_testing", "--help"])
    with pytest.raises(SystemExit):
        main()
    known = capsys.readouterr().out
    assert [option for option in wanted if option.split()[0] not in known] == []


def test_the_comparison_takes_several_steps() -> None:
    given = ["STEPS=1 50", "SECONDS=5", "REPEATS=3", "THINK_SECONDS=2"]
    made = subprocess.run(["make", "-n", "compare", *given], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = "load_testing.compare --steps 1 50 --seconds 5 --repeats 3 --think-seconds 2"
    assert made.stdout.splitlines()[-1].endswith(wanted)
