"""The local stack with real servers: it starts them, restarts them, and leaves nothing behind."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis

from local_stack import StackError
from local_stack.components.postgres import account_for_postgres
from local_stack.settings import StackSettings
from local_stack.testing import RunningStack, running_stack, settings_for_tests
from tests.permissions import open_to_others
from tests.waiting import wait_for

PROJECT = Path(__file__).parents[2]
LONGEST_START_SECONDS = 240
STORAGE = "postgres,redis"
ALL_INFRASTRUCTURE = {"postgres", "redis", "opensearch", "argilla", "argilla_worker"}
PROGRAMS = {"ingestion_api", "uploader", "serving_api"}


wait_until = partial(wait_for, seconds=30)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until_gone(processes: list[psutil.Process], seconds: float = 40) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    left = [process for process in alive if not is_gone(process)]
    assert left == []


# ---- The stack of the test run. Its parts are killed here, so these tests come last: see conftest.py ----


@pytest.fixture
def own_stack(stack: RunningStack) -> RunningStack:
    """The whole platform, running in this process."""
    return stack


def processes_of(stack: RunningStack) -> list[psutil.Process]:
    parts = [psutil.Process(pid) for pid in stack.pids.values()]
    return [*parts, *(child for part in parts for child in part.children(recursive=True))]


def published(own_stack: RunningStack) -> dict[str, int]:
    content: dict[str, dict[str, int]] = json.loads((own_stack.settings.data_dir / "stack.json").read_text())
    return content["pids"]


def test_argilla_knows_its_owner(own_stack: RunningStack) -> None:
    headers = {"X-Argilla-Api-Key": own_stack.argilla_api_key}
    me = httpx.get(f"{own_stack.argilla_url}/api/v1/me", headers=headers).json()
    assert me["role"] == "owner"
    workspaces = httpx.get(f"{own_stack.argilla_url}/api/v1/me/workspaces", headers=headers).json()
    assert "annotation" in [workspace["name"] for workspace in workspaces["items"]]


def test_argilla_takes_the_generated_password(own_stack: RunningStack) -> None:
    credentials = own_stack.stack.context.credentials
    login = {"username": credentials.argilla_username, "password": credentials.argilla_password}
    assert httpx.post(f"{own_stack.argilla_url}/api/v1/token", data=login).status_code == 201


@pytest.mark.parametrize("key", ["argilla.apikey", "owner.apikey", "admin.apikey"])
def test_argilla_refuses_published_keys(own_stack: RunningStack, key: str) -> None:
    answer = httpx.get(f"{own_stack.argilla_url}/api/v1/me", headers={"X-Argilla-Api-Key": key})
    assert answer.status_code == 401


def test_argilla_answers_no_other_origin(own_stack: RunningStack) -> None:
    def allowed(origin: str) -> str | None:
        answer = httpx.get(f"{own_stack.argilla_url}/api/v1/version", headers={"Origin": origin})
        allowed_origin: str | None = answer.headers.get("access-control-allow-origin")
        return allowed_origin

    assert allowed("http://evil.example") is None
    assert allowed(own_stack.argilla_url) == own_stack.argilla_url


def test_argilla_serves_its_pages(own_stack: RunningStack) -> None:
    assert "<html" in httpx.get(f"{own_stack.argilla_url}/sign-in").text


def test_everything_listens_on_loopback_only(own_stack: RunningStack) -> None:
    listening = [
        connection.laddr
        for process in processes_of(own_stack)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert {address.port for address in listening} == set(own_stack.settings.ports.values())


def test_no_secret_is_on_a_command_line_or_in_a_log(own_stack: RunningStack) -> None:
    secrets = [
        value
        for name, value in own_stack.stack.context.credentials.model_dump().items()
        if name != "argilla_username"
    ]
    commands = [" ".join(process.cmdline()) for process in processes_of(own_stack)]
    logs = [log.read_text(errors="replace") for log in own_stack.logs_dir.iterdir()]
    assert commands
    assert logs
    assert not [text for text in commands + logs if any(secret in text for secret in secrets)]


def test_roles_are_least_privileged(own_stack: RunningStack) -> None:
    with psycopg.connect(own_stack.database_url) as connection:
        role = connection.execute(
            "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user"
        ).fetchone()
    assert role == (False, False, False)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(own_stack.database_url.removesuffix("annotation_platform") + "argilla")


def test_wrong_password_is_refused(own_stack: RunningStack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(own_stack.database_url.replace("annotation_platform:", "annotation_platform:x"))


def test_opensearch_answers_argilla_only(own_stack: RunningStack) -> None:
    port = own_stack.settings.opensearch_port
    for credentials in ("", "argilla:wrong@", "admin:admin@"):
        url = f"http://{credentials}127.0.0.1:{port}"
        for path in ("/", "/_cat/indices", "/_search", "/_cluster/health"):
            assert httpx.get(url + path).status_code == 401
    assert httpx.get(f"{own_stack.opensearch_url}/_search").status_code == 200


def test_opensearch_takes_no_node_without_its_certificate(own_stack: RunningStack) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", own_stack.settings.opensearch_transport_port)
    with socket.create_connection(address, 30) as plain:
        plain.sendall(b"ES" + bytes(64))
        assert plain.recv(1) == b""
    with socket.create_connection(address, 30) as plain, context.wrap_socket(plain) as encrypted:
        encrypted.sendall(b"ES" + bytes(64))
        with pytest.raises(ssl.SSLError, match="certificate"):
            encrypted.recv(1)


def test_redis_answers_nobody_without_the_password(own_stack: RunningStack) -> None:
    with redis.Redis(port=own_stack.settings.redis_port) as client, pytest.raises(redis.AuthenticationError):
        client.keys()


def test_postgres_is_18_and_durable(own_stack: RunningStack) -> None:
    with psycopg.connect(own_stack.database_url) as connection:
        names = ("server_version_num", "fsync", "synchronous_commit", "full_page_writes")
        values = [connection.execute(f"show {name}").fetchone() for name in names]
    assert values[0] is not None
    assert values[0][0].startswith("18")
    assert values[1:] == [("on",)] * 3


def test_stack_json_is_private_and_complete(own_stack: RunningStack) -> None:
    file = own_stack.settings.data_dir / "stack.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = json.loads(file.read_text())
    assert content["argilla_url"] == own_stack.argilla_url
    assert content["argilla_api_key"] == own_stack.argilla_api_key
    assert content["database_url"] == own_stack.database_url
    assert content["pids"].keys() == ALL_INFRASTRUCTURE | PROGRAMS


def open_data(settings: StackSettings) -> dict[Path, str]:
    """Return the paths that other users could read in DATA_DIR; only root's Postgres may traverse it."""
    found = open_to_others(settings.data_dir)
    if (account := account_for_postgres()) is not None:
        assert found.pop(settings.data_dir) == oct(0o710)
        assert settings.data_dir.stat().st_gid == account.gid
    # Argilla copies its published web pages into closed folders, with the modes that the package gives them.
    pages = settings.data_dir / "argilla"
    return {path: mode for path, mode in found.items() if not ("statics" in path.parts and pages in path.parents)}


def test_only_the_owner_may_read_the_data(own_stack: RunningStack) -> None:
    names = {path.name for path in own_stack.settings.data_dir.iterdir()}
    assert {"postgres", "redis", "opensearch", "argilla", "serving", "logs", "stack.json"} <= names
    assert open_data(own_stack.settings) == {}


@pytest.mark.parametrize("name", sorted(ALL_INFRASTRUCTURE))
def test_killed_component_is_started_again(own_stack: RunningStack, name: str) -> None:
    victim = psutil.Process(own_stack.pids[name])
    left_behind = victim.children(recursive=True)
    others = {other: pid for other, pid in own_stack.pids.items() if other != name}
    own_stack.kill(name, signal.SIGKILL)
    wait_until(lambda: published(own_stack).get(name, victim.pid) != victim.pid)
    assert psutil.pid_exists(published(own_stack)[name])
    wait_until_gone([victim, *left_behind])
    assert {other: pid for other, pid in own_stack.pids.items() if other != name} == others


@pytest.mark.soak
def test_argilla_works_after_all_of_it_was_killed(own_stack: RunningStack) -> None:
    headers = {"X-Argilla-Api-Key": own_stack.argilla_api_key}

    def answers() -> bool:
        try:
            return httpx.get(f"{own_stack.argilla_url}/api/v1/me", headers=headers).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, seconds=90)


def test_stopped_component_stays_down_until_started(own_stack: RunningStack) -> None:
    own_stack.stop_component("redis")
    assert "redis" not in published(own_stack)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own_stack.settings.redis_port))
    own_stack.start_component("redis")
    socket.create_connection(("127.0.0.1", own_stack.settings.redis_port)).close()
    assert published(own_stack)["redis"] == own_stack.pids["redis"]


def test_data_survives_kills_of_postgres(own_stack: RunningStack) -> None:
    own_stack.restart("postgres")  # a test before has killed it, and it may still be starting
    with psycopg.connect(own_stack.database_url) as connection:
        connection.execute("create table kept as select 1 as n")
    killed = own_stack.pids["postgres"]
    own_stack.kill("postgres")
    wait_until(lambda: own_stack.pids.get("postgres", killed) != killed)
    own_stack.restart("postgres")
    with psycopg.connect(own_stack.database_url) as connection:
        assert connection.execute("select n from kept").fetchone() == (1,)


# ---- Stacks of their own, as `make up` runs them ----


class Up:
    """A running `python -m local_stack up` and its output."""

    def __init__(self, settings: StackSettings, only: str, command: list[str] | None = None) -> None:
        self.settings = settings
        self.output_file = settings.data_dir.parent / f"output-{time.monotonic_ns()}"
        with self.output_file.open("w") as output:
            self.process = subprocess.Popen(
                command or [sys.executable, "-m", "local_stack", "up", "--only", only],
                cwd=PROJECT,
                env=environment(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # as most shells have it
            )
        self.itself = psutil.Process(self.process.pid)

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def wait_until_ready(self) -> None:
        # Not stack.json: a killed stack may have left one.
        wait_until(
            lambda: "Ready." in self.output or self.process.poll() is not None, seconds=LONGEST_START_SECONDS
        )
        assert self.process.poll() is None, self.output

    @property
    def stack_json(self) -> Path:
        return self.settings.data_dir / "stack.json"

    def everything(self) -> list[psutil.Process]:
        return [self.itself, *self.itself.children(recursive=True)]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def environment(settings: StackSettings) -> dict[str, str]:
    directories = {"DATA_DIR": str(settings.data_dir), "CACHE_DIR": str(settings.cache_dir)}
    return {**os.environ, **directories, **{name: str(port) for name, port in settings.ports.items()}}


def local_stack(settings: StackSettings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "local_stack", *arguments],
        cwd=PROJECT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=LONGEST_START_SECONDS,
        check=False,
    )


@pytest.fixture
def settings() -> Iterator[StackSettings]:
    with settings_for_tests() as chosen:
        yield chosen


@contextmanager
def up(settings: StackSettings, only: str = STORAGE, command: list[str] | None = None) -> Iterator[Up]:
    running = Up(settings, only, command)
    try:
        yield running
    finally:
        running.end()


@pytest.mark.soak
def test_killed_supervisor_leaves_nothing_running(settings: StackSettings) -> None:
    # Without Argilla: it takes half a minute to start, and is ended as these are.
    with up(settings, f"{STORAGE},opensearch") as running:
        running.wait_until_ready()
        everything = running.everything()
        assert {"java", "postgres", "redis-server"} <= {process.name() for process in everything}
        running.process.kill()
        wait_until_gone(everything)


@pytest.mark.soak
def test_killed_supervisor_is_healed_by_the_next_start(settings: StackSettings) -> None:
    with up(settings) as first:
        first.wait_until_ready()
        first.process.kill()
        first.process.wait()
    assert first.stack_json.exists()
    # Start immediately, while the processes of the first stack still stop.
    with up(settings) as second:
        second.wait_until_ready()
        assert json.loads(second.stack_json.read_text())["pids"].keys() == {"postgres", "redis"}
        assert all(psutil.pid_exists(pid) for pid in json.loads(second.stack_json.read_text())["pids"].values())


_SOAK = pytest.mark.soak


@pytest.mark.soak
@pytest.mark.parametrize(
    ("send", "number"),
    [
        (os.kill, signal.SIGKILL),
        (os.killpg, signal.SIGTERM),
        pytest.param(os.killpg, signal.SIGINT, marks=_SOAK),
        pytest.param(os.killpg, signal.SIGKILL, marks=_SOAK),
        pytest.param(os.kill, signal.SIGTERM, marks=_SOAK),
        pytest.param(os.kill, signal.SIGINT, marks=_SOAK),
    ],
)
def test_ended_make_leaves_nothing_running(
    settings: StackSettings, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    makefile = settings.data_dir.parent / "Makefile"
    # Two commands in a line: a shell stays between `make` and the stack, and passes no signal on.
    makefile.write_text(f"up:\n\t@echo starting; {sys.executable} -m local_stack up --only {STORAGE}\n")
    with up(settings, command=["make", "-f", str(makefile), "up"]) as running:
        running.wait_until_ready()
        everything = running.everything()
        assert "postgres" in {process.name() for process in everything}
        send(running.process.pid, number)
        wait_until_gone(everything)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=_SOAK)])
def test_signal_stops_everything_cleanly(settings: StackSettings, number: signal.Signals) -> None:
    with up(settings) as running:
        running.wait_until_ready()
        everything = running.everything()
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
        assert_stopped_cleanly(running, everything, number)


def assert_stopped_cleanly(running: Up, everything: list[psutil.Process], number: signal.Signals) -> None:
    assert [process for process in everything if not is_gone(process)] == []
    assert not running.stack_json.exists()
    assert f"{number.name}: stopping." in running.output
    assert "database system is shut down" in (running.settings.logs_dir / "postgres.log").read_text()


def test_signal_while_starting_stops_everything(settings: StackSettings) -> None:
    with up(settings, "argilla") as running:
        wait_until(lambda: "opensearch: working" in running.output)
        wait_until(lambda: len(running.everything()) > 2)
        everything = running.everything()
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert [process for process in everything if not is_gone(process)] == []


@pytest.mark.soak
def test_killed_test_run_leaves_nothing_running(settings: StackSettings) -> None:
    source = (
        "import tempfile, time\n"
        # Where this test's own directory is deleted, since a killed run cannot delete its own.
        f"tempfile.tempdir = {str(settings.data_dir.parent)!r}\n"
        "from local_stack.testing import running_stack\n"
        f"with running_stack({set(STORAGE.split(','))}) as stack:\n"
        "    print(stack.pids, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with up(settings, command=[sys.executable, "-c", source]) as running:
        wait_until(lambda: "postgres" in running.output)
        everything = running.everything()
        running.process.kill()
        wait_until_gone(everything)


@pytest.mark.soak
def test_second_up_on_the_same_data_is_refused(settings: StackSettings) -> None:
    with up(settings) as running:
        running.wait_until_ready()
        second = local_stack(settings, "up", "--only", STORAGE)
        assert second.returncode == 1
        assert f"already runs on {settings.data_dir} (pid {running.process.pid})" in second.stderr
        assert "make down" in second.stderr
        assert running.stack_json.exists()


def test_data_of_an_older_version_is_closed_to_others_until_down_stops_everything(
    settings: StackSettings,
) -> None:
    (settings.data_dir / "logs").mkdir(parents=True)
    settings.data_dir.chmod(0o755)
    with up(settings) as running:
        running.wait_until_ready()
        # `logs` keeps its mode: other users can no longer reach it.
        assert open_data(settings).keys() <= {settings.logs_dir}
        everything = running.everything()
        assert "Stopped." in local_stack(settings, "down").stdout
        assert running.process.wait(60) == 0
        assert_stopped_cleanly(running, everything, signal.SIGTERM)


def test_data_does_not_go_where_all_users_may_write(settings: StackSettings) -> None:
    settings.data_dir.mkdir()
    settings.data_dir.chmod(0o1777)
    answer = local_stack(settings, "up", "--only", STORAGE)
    assert answer.returncode == 1
    assert f"{settings.data_dir} is shared by all users of this machine" in answer.stderr


@pytest.mark.soak
def test_status_tells_a_running_stack_from_a_killed_one(settings: StackSettings) -> None:
    with up(settings) as running:
        running.wait_until_ready()
        status = local_stack(settings, "status")
        assert status.returncode == 0
        assert "postgres runs (pid " in status.stdout
        running.process.kill()
        running.process.wait()
    status = local_stack(settings, "status")
    assert status.returncode == 1
    assert f"No stack is ready on {settings.data_dir}" in status.stderr


def test_down_without_a_stack_says_so(settings: StackSettings) -> None:
    down = local_stack(settings, "down")
    assert down.returncode == 0
    assert f"No stack runs on {settings.data_dir}" in down.stdout


def test_clean_stops_and_deletes(settings: StackSettings) -> None:
    with up(settings) as running:
        running.wait_until_ready()
        assert local_stack(settings, "clean").returncode == 0
        assert not settings.data_dir.exists()
        assert running.process.wait(60) == 0


def test_taken_port_is_named_before_anything_starts(settings: StackSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.redis_port)):
        answer = local_stack(settings, "up", "--only", STORAGE)
    assert answer.returncode == 1
    assert f"Port {settings.redis_port} is taken by " in answer.stderr
    assert f"(pid {os.getpid()})" in answer.stderr
    assert "REDIS_PORT" in answer.stderr
    assert not (settings.data_dir / "postgres").exists()


@pytest.mark.soak
def test_two_stacks_run_side_by_side(settings: StackSettings) -> None:
    with settings_for_tests() as other_settings, up(settings) as one, up(other_settings) as other:
        one.wait_until_ready()
        other.wait_until_ready()


@pytest.mark.soak
def test_data_is_found_again_after_a_kill(settings: StackSettings) -> None:
    with up(settings) as running:
        running.wait_until_ready()
        url = json.loads(running.stack_json.read_text())["database_url"]
        with psycopg.connect(url) as connection:
            connection.execute("create table kept as select 1 as n")
        os.kill(json.loads(running.stack_json.read_text())["pids"]["postgres"], signal.SIGKILL)
        running.process.kill()
        running.process.wait()
    with up(settings) as running:
        running.wait_until_ready()
        with psycopg.connect(url) as connection:
            assert connection.execute("select n from kept").fetchone() == (1,)


@pytest.mark.soak
def test_component_that_cannot_start_shows_its_last_lines(settings: StackSettings) -> None:
    with up(settings) as running:
        running.wait_until_ready()
    (settings.data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    answer = local_stack(settings, "up", "--only", "postgres")
    assert answer.returncode == 1
    assert "postgres ended while starting: exit code 1." in answer.stderr
    assert "initialized by PostgreSQL version 17" in answer.stderr


def test_unknown_component_is_named() -> None:
    with pytest.raises(StackError, match="No such components: mysql"), running_stack({"mysql"}):
        pytest.fail("it started")
