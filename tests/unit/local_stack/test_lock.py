import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_stack import StackError
from local_stack.data_dir import StackLock

HOLD = """
import sys, time
from pathlib import Path
from local_stack.data_dir import StackLock
StackLock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
time.sleep(60)
"""


def held_by_another_process(data_dir: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_second_stack_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    lock = StackLock(tmp_path)
    with held_by_another_process(tmp_path) as owner:
        found = lock.running_owner()
        with pytest.raises(StackError, match=rf"already runs on .* \(pid {owner.pid}\)"):
            lock.acquire()
        owner.kill()
    lock.release()
    assert found is not None
    assert found.pid == owner.pid


def test_lock_of_a_killed_stack_is_taken_over(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as owner:
        owner.kill()
    lock = StackLock(tmp_path)
    assert lock.running_owner() is None
    lock.acquire()
    assert json.loads((tmp_path / "stack.lock").read_text())["pid"] == os.getpid()
    lock.release()


def test_owner_file_whose_pid_was_given_to_another_process_is_stale(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as owner:
        created = psutil.Process(owner.pid).create_time()
        (tmp_path / "stack.lock").write_text(json.dumps({"pid": owner.pid, "created": created - 3600}))
        lock = StackLock(tmp_path)
        assert lock.running_owner() is None
        owner.kill()
    lock.release()


def test_wait_ends_when_the_lock_is_free(tmp_path: Path) -> None:
    lock = StackLock(tmp_path)
    with held_by_another_process(tmp_path) as owner:
        assert not lock.wait_until_free(0.1)
        owner.kill()
        assert lock.wait_until_free(10)
    lock.release()


def test_damaged_owner_file_is_healed(tmp_path: Path) -> None:
    (tmp_path / "stack.lock").write_text("{half")
    lock = StackLock(tmp_path)
    lock.acquire()
    assert json.loads((tmp_path / "stack.lock").read_text())["pid"] == os.getpid()
    lock.release()
