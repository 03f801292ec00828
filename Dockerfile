# One image for all programs: targets `runtime` (the default) and `load` (with Locust).
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
# Of the same Debian, and the release of docker-compose.yml: a dump must fit its server.
ARG POSTGRES_IMAGE=postgres:16.14-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIPENV_VERSION=2026.10.3
WORKDIR /build
# The secret is a pip.conf of whoever builds, if they have one; it is in no layer.
RUN --mount=type=secret,id=pip_conf,target=/root/.config/pip/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    pip install pipenv==${PIPENV_VERSION}
COPY Pipfile Pipfile.lock ./
RUN pipenv requirements --hash | grep -v '^-e ' > packages.txt \
    && pipenv requirements --dev-only --hash > packages-dev.txt \
    && grep '^setuptools==' packages-dev.txt > packages-build.txt \
    && python -m venv --without-pip /opt/venv
RUN --mount=type=secret,id=pip_conf,target=/root/.config/pip/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement packages-build.txt \
    && pip --python /opt/venv/bin/python install --require-hashes --no-deps --only-binary :all: \
        --requirement packages.txt
# What the packages bring for their own developers: a fifth of their size.
RUN find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf /opt/venv/lib/python3*/site-packages/pyarrow/include /opt/venv/lib/python3*/site-packages/pyarrow/src
COPY pyproject.toml ./
COPY core core
COPY ingestion_api ingestion_api
COPY uploader uploader
COPY serving_api serving_api
COPY cli cli
# Built first: setuptools is here, not in the environment that the programs get.
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
    && pip --python /opt/venv/bin/python install --no-deps --no-index wheels/*.whl

FROM build AS build-load
COPY deployment/load_packages.txt ./
RUN --mount=type=secret,id=pip_conf,target=/root/.config/pip/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    sed 's/-/[-_.]/g; s/.*/^&==/' load_packages.txt > patterns.txt \
    && grep --ignore-case --file patterns.txt packages-dev.txt > packages-load.txt \
    && pip --python /opt/venv/bin/python install --require-hashes --no-deps --only-binary :all: \
        --requirement packages-load.txt

FROM ${PYTHON_IMAGE} AS base
# Nothing in here installs or builds anything any more.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && rm -rf /usr/local/lib/python3*/ensurepip \
    && groupadd --gid 10001 platform \
    && useradd --uid 10001 --gid platform --no-create-home --home-dir /tmp --shell /usr/sbin/nologin platform \
    && install --directory --owner platform --group platform --mode 0700 /data /snapshots /backups
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data
USER 10001:10001
WORKDIR /data

FROM ${POSTGRES_IMAGE} AS postgres

FROM base AS runtime
USER root
# For `annotate backup`: three programs, and those of their libraries that are not here yet.
RUN --mount=type=bind,from=postgres,target=/postgres \
    for name in pg_dump pg_restore psql; do \
        program=$(/usr/sbin/chroot /postgres sh -c "echo /usr/lib/postgresql/*/bin/$name") \
        && install -D "/postgres$program" "$program" \
        && /usr/sbin/chroot /postgres ldd "$program" | awk '$3 ~ "^/" {print $3}' >> /tmp/libraries || exit 1; \
    done \
    && sort -u /tmp/libraries | while read -r library; do \
        [ -e "$library" ] || cp -L "/postgres$library" "$library" || exit 1; \
    done \
    && rm /tmp/libraries
USER 10001:10001
COPY --from=build /opt/venv /opt/venv
CMD ["annotate", "--help"]

FROM base AS load
COPY --from=build-load /opt/venv /opt/venv
COPY load_testing /load/load_testing
WORKDIR /load/load_testing
CMD ["locust"]

FROM runtime
