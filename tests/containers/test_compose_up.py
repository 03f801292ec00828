"""`docker compose up`: the whole platform from a text to its label, on real containers."""

import socket
import time
from uuid import UUID

import httpx
import pytest

from tests.containers.conftest import Platform, wait_for_keys
from tests.containers.engine import Composition
from tests.waiting import wait_for

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

TEXT = "You are all idiots."
# Prints how many calls for texts the serving API in this container has answered.
COUNT_CALLS = """
import os, urllib.request as u
headers = {"Authorization": "Bearer " + os.environ.get("METRICS_TOKEN", "")}
text = u.urlopen(u.Request("http://127.0.0.1:9000/metrics", headers=headers)).read().decode()
lines = [line for line in text.splitlines() if "seconds_count{" in line and '"/texts"' in line]
print(sum(float(line.split()[-1]) for line in lines))
"""


def submit(platform: Platform, text: str) -> httpx.Response:
    """Send a text with a key."""
    return platform.api("INGESTION_PORT", "ingest").post("/texts", json={"text": text, "label": "toxic"})


def wait_until_uploaded(platform: Platform, id_: str) -> None:
    """Wait until annotators can see the text."""
    api = platform.api("INGESTION_PORT", "ingest")
    wait_for(lambda: api.get(f"/texts/{id_}").json()["status"] in {"uploaded", "labelled"}, 120)


def served(platform: Platform) -> dict[str, str | None]:
    """Return the labels that readers get, by text."""
    items = platform.api("SERVING_PORT", "read").get("/texts").raise_for_status().json()["items"]
    return {item["text"]: item["label"] for item in items}


def label(platform: Platform, text: str, value: str) -> None:
    """Send a text, have an annotator answer, and wait until readers get the label."""
    answer = submit(platform, text)
    assert answer.status_code in {200, 201}, answer.text
    id_ = answer.json()["id"]
    wait_until_uploaded(platform, id_)
    argilla = platform.argilla()
    annotator = argilla.add_annotator("reader")
    annotator.answer(argilla.record(UUID(id_))["id"], value)
    wait_for(lambda: served(platform).get(text) == value, 120)


def test_a_text_travels_from_post_to_get(platform: Platform) -> None:
    label(platform, TEXT, "toxic")
    webhooks = platform.argilla().http.get("webhooks").json()["items"]
    assert [hook["url"] for hook in webhooks] == ["http://ingestion:8080/webhooks/argilla"]


def test_nothing_is_answered_without_the_right_key(platform: Platform) -> None:
    assert platform.api("INGESTION_PORT").post("/texts", json={"text": "x"}).status_code == 401
    assert platform.api("INGESTION_PORT", "read").post("/texts", json={"text": "x"}).status_code == 403
    assert platform.api("SERVING_PORT").get("/texts").status_code == 401
    assert platform.api("SERVING_PORT", "ingest").get("/texts").status_code == 403
    for key in ("argilla.apikey", "owner.apikey"):
        headers = {"X-Argilla-Api-Key": key}
        assert httpx.get(f"{platform.url('ARGILLA_PORT')}/api/v1/me", headers=headers).status_code == 401


def test_the_gateway_limits_bodies_for_argilla_only(platform: Platform) -> None:
    url = f"{platform.url('ARGILLA_PORT')}/api/v1/me/responses/bulk"
    megabyte = b"x" * 2**20
    # httpx sends an iterator in chunks, without a length: nginx has to count.
    assert httpx.post(url, content=megabyte * 21).status_code == 413
    assert httpx.post(url, content=iter([megabyte] * 21)).status_code == 413
    assert httpx.post(url, content=megabyte * 19).status_code == 401
    bulk = platform.api("INGESTION_PORT", "ingest")
    line = b'{"text": "%s"}\n' % (b"long " * 12_000)
    answer = bulk.post("/texts/bulk", content=line * 400, headers={"Content-Type": "application/x-ndjson"})
    assert (answer.status_code, answer.json()["received"]) == (200, 400), answer.text


def test_everything_is_there_after_down_and_up(platform: Platform) -> None:
    label(platform, "Have a nice day.", "non_toxic")
    before = served(platform)
    records = platform.argilla().stored_count()
    platform.composition.run("down")
    platform.composition.up()
    wait_for_keys(platform)
    assert served(platform) == before
    assert platform.argilla().stored_count() == records
    wait_for(lambda: platform.argilla().visible_count() == records)
    again = submit(platform, TEXT)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    label(platform, "Labelled after the second start.", "toxic")


def test_a_backup_brings_everything_back(platform: Platform) -> None:
    label(platform, "Kept in a back-up.", "non_toxic")
    before = served(platform)
    records = platform.argilla().stored_count()
    run = platform.composition.run
    archive = run("run", "--rm", "--no-TTY", "annotate", "backup", "/backups").strip()
    assert archive.startswith("/backups/annotation-platform-")
    run("down", "--volumes")
    platform.composition.up("postgres", "redis", "search")
    run("run", "--rm", "--no-TTY", "--no-deps", "annotate", "restore", archive)
    reindex = ("python", "-I", "-m", "argilla_server", "search-engine", "reindex")
    run("run", "--rm", "--no-TTY", "--no-deps", "argilla", *reindex)
    platform.composition.up()
    wait_for_keys(platform)
    assert served(platform) == before
    assert platform.argilla().stored_count() == platform.argilla().visible_count() == records
    again = submit(platform, TEXT)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    label(platform, "Labelled after the restore.", "toxic")


def test_the_containers_may_do_as_little_as_the_file_says(platform: Platform) -> None:
    containers = platform.composition.containers()
    assert containers.keys() >= {"postgres", "redis", "search", "argilla", "argilla-worker", "gateway", "serving"}
    for service, container in containers.items():
        host = container["HostConfig"]
        assert container["Config"]["User"] not in {"", "0", "root"}, service
        assert host["ReadonlyRootfs"] or service == "search"
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["LogConfig"]["Config"]["max-size"], service
        assert container["State"]["Health"]["Status"] == "healthy", service
        published = {port for port, hosts in container["NetworkSettings"]["Ports"].items() if hosts}
        assert published == ({"8080/tcp", "9000/tcp", "6900/tcp"} if service == "gateway" else set())
        for hosts in container["NetworkSettings"]["Ports"].values():
            assert {address["HostIp"] for address in hosts or []} <= {"127.0.0.1"}


def test_the_image_holds_no_tools(platform: Platform) -> None:
    run = platform.composition
    assert run.execute("ingestion", "id", "-u").strip() == "10001"
    for module in ("pip", "ensurepip", "pytest", "locust", "local_stack"):
        assert run.fails("ingestion", "python", "-c", f"import {module}"), module
    for tool in ("pip", "gcc", "cc", "make", "git"):
        assert run.fails("ingestion", "sh", "-c", f"command -v {tool}"), tool
    for path in ("/x", "/opt/venv/x", "/data/x", "/usr/local/bin/x"):
        assert run.fails("ingestion", "touch", path), path


def test_each_container_reaches_only_what_it_needs(platform: Platform) -> None:
    run = platform.composition
    ask = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    for service, host, port, reached in [
        ("ingestion", "postgres", 5432, True),
        ("uploader", "argilla", 6900, True),
        ("argilla", "redis", 6379, True),
        ("ingestion", "redis", 6379, False),
        ("serving", "search", 9200, False),
        ("uploader", "search", 9200, False),
    ]:
        assert run.fails(service, "python", "-c", ask, host, str(port)) is not reached, (service, host)
    routes = run.execute("serving", "cat", "/proc/net/route").splitlines()[1:]
    assert routes
    assert all(route.split()[1] != "00000000" for route in routes), "a way out"


def test_a_role_of_postgres_has_its_own_database_only(platform: Platform) -> None:
    connect = """
import os, sys, psycopg
ask = "select rolsuper or rolcreatedb or rolcreaterole from pg_roles where rolname = current_user"
with psycopg.connect(os.environ["DATABASE_URL"], dbname=sys.argv[1]) as connection:
    print(connection.execute(ask).fetchone()[0])
"""
    run = platform.composition
    assert run.execute("ingestion", "python", "-c", connect, "annotation_platform").strip() == "False"
    for database in ("argilla", "postgres"):
        assert run.fails("ingestion", "python", "-c", connect, database), database


def test_a_range_does_not_reach_argilla(platform: Platform) -> None:
    page = httpx.get(platform.url("ARGILLA_PORT"), follow_redirects=True)
    script = page.text.partition('src="')[2].partition('"')[0]
    assert script
    answer = httpx.get(httpx.URL(platform.url("ARGILLA_PORT")).join(script), headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert len(answer.content) > 10


def test_a_client_that_dribbles_its_headers_is_cut_off(platform: Platform) -> None:
    for port in ("INGESTION_PORT", "SERVING_PORT", "ARGILLA_PORT"):
        with socket.create_connection(("127.0.0.1", platform.ports[port]), 60) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            started = time.monotonic()
            slow.settimeout(60)
            while slow.recv(1000):
                pass
            assert time.monotonic() - started > 5, "cut off for another reason"


def test_an_api_that_is_away_is_a_503_that_says_so(platform: Platform) -> None:
    platform.composition.run("stop", "serving")
    answer = platform.api("SERVING_PORT", "read").get("/texts")
    platform.composition.up()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"]
    assert answer.json()["code"] == "upstream_away"


def test_more_replicas_share_the_calls(platform: Platform) -> None:
    scaled = Composition(platform.composition.project, platform.composition.env_file, ("scale",))
    scaled.up()
    wait_for_keys(platform)

    def calls(service: str) -> float:
        return float(scaled.execute(service, "python", "-c", COUNT_CALLS))

    before = {service: calls(service) for service in ("serving", "serving-replica")}
    expected = served(platform)

    def both_answered() -> bool:
        assert served(platform) == expected
        return all(calls(service) > count for service, count in before.items())

    wait_for(both_answered, 300)
    scaled.run("kill", "serving")
    for _ in range(20):
        assert served(platform) == expected
    scaled.run("rm", "--stop", "--force", "--volumes", "ingestion-replica", "serving-replica")
    platform.composition.up()


def test_prometheus_reaches_every_program(platform: Platform) -> None:
    monitored = Composition(platform.composition.project, platform.composition.env_file, ("monitoring",))
    monitored.run("up", "--detach", "prometheus")
    url = f"{platform.url('PROMETHEUS_PORT')}/api/v1/targets"

    def all_up() -> bool:
        try:
            answer = httpx.get(url)
        except httpx.TransportError:
            return False
        # It answers 503 until it has read its database.
        targets = answer.json()["data"]["activeTargets"] if answer.is_success else []
        return len(targets) >= 3 and all(target["health"] == "up" for target in targets)

    wait_for(all_up, 120)
    monitored.run("rm", "--stop", "--force", "prometheus")


def test_locust_opens_its_page(platform: Platform) -> None:
    loaded = Composition(platform.composition.project, platform.composition.env_file, ("load",))
    loaded.run("build", "load", seconds=1800)
    loaded.up("load")
    page = httpx.get(platform.url("LOCUST_PORT"))
    assert "IngestionUser" in page.text
    assert "ServingUser" in page.text
    loaded.run("rm", "--stop", "--force", "load")


@pytest.mark.parametrize("value", ["argilla.apikey", "1234", "short", "has a blank in its midst"])
def test_known_and_weak_secrets_are_refused(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    env_file = tmp_path_factory.mktemp("weak") / "env"
    secret = platform.secrets["ARGILLA_OWNER_API_KEY"]
    env_file.write_text(platform.composition.env_file.read_text().replace(secret, value))
    weak = Composition(f"{platform.composition.project}-weak", env_file)
    result = weak.call("up", "--detach", "postgres")
    said = weak.run("logs", "--no-log-prefix", "check-secrets")
    weak.run("down", "--volumes")
    assert result.returncode != 0
    assert "ARGILLA_OWNER_API_KEY" in said
    assert value not in said.replace("ARGILLA_OWNER_API_KEY", "")


def test_without_secrets_compose_does_not_start(engine: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    env_file = tmp_path_factory.mktemp("empty") / "env"
    env_file.write_text("")
    result = Composition("test-empty", env_file).call("up", "--detach")
    assert result.returncode != 0
    assert "make compose-env" in result.stderr
