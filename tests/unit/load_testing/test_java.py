"""Version 1 says which Java it needs."""

from pathlib import Path

import pytest

from load_testing.version_1.baseline import find_java
from local_stack import StackError


def make_java(home: Path, version: str = "17.0.15", modules: bytes = b"..BreakIteratorInfo_th..") -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    java = home / "bin" / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    (home / "lib" / "modules").write_bytes(modules)
    return java


def test_the_java_of_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, other = make_java(tmp_path / "wanted"), make_java(tmp_path / "other")
    monkeypatch.setenv("PATH", str(other.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "wanted"))
    assert find_java() == wanted
    monkeypatch.delenv("JAVA_HOME")
    assert find_java() == other


def test_a_link_leads_to_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = make_java(tmp_path / "jvm")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(java)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_java() == java


@pytest.mark.parametrize(
    ("version", "modules", "said"),
    [("11.0.2", b"BreakIteratorInfo_th", "is of Java 11"), ("21", b"small", "has no Thai locale data")],
)
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, modules: bytes, said: str
) -> None:
    make_java(tmp_path / "jvm", version, modules)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jvm"))
    with pytest.raises(StackError, match=said) as refusal:
        find_java()
    assert "apt-get install openjdk-17-jre-headless" in str(refusal.value)


def test_no_java_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="no `java` on the PATH"):
        find_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StackError, match="has no bin/java"):
        find_java()


def test_a_java_without_its_files_is_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_java(tmp_path / "jvm")
    (tmp_path / "jvm" / "release").unlink()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jvm"))
    with pytest.raises(StackError, match="lacks the files"):
        find_java()
