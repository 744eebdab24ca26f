# One image for every service: `docker run job-dispatcher run intake`, `… worker billing:jobs`, `… topology apply`.
# docs/deploy-compose.md explains it; `make image` builds it, `make containers` checks it.
#
# The base is Debian with Python 3.11 or newer and its venv module. It is used as it is: nothing is installed into it.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS packages
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# process 1: hands signals on, and reaps what a handler's child process left behind
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/*
# pip stays in this stage; the environment that is shipped has none
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/dispatcher
COPY requirements/build.txt requirements/runtime.txt /build/requirements/
RUN /opt/tools/bin/pip install --require-hashes --only-binary :all: -r /build/requirements/build.txt \
    && /opt/tools/bin/pip --python /opt/dispatcher/bin/python install --require-hashes --only-binary :all: \
        --no-compile -r /build/requirements/runtime.txt
COPY pyproject.toml README.md LICENSE /build/
COPY schemas /build/schemas
COPY config /build/config
COPY dispatcher /build/dispatcher
COPY consumers /build/consumers
COPY deploy/image/healthcheck.py /opt/dispatcher/bin/
WORKDIR /build
# Compiled once: a container cannot write to its file system. By hash, not by time: a build from the same files is
# the same.
RUN /opt/tools/bin/hatchling build --target wheel \
    && /opt/tools/bin/pip --python /opt/dispatcher/bin/python install --no-deps --no-index --no-compile dist/*.whl \
    && /opt/dispatcher/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/dispatcher/lib \
    && install --directory --mode 0755 /state

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Job Dispatcher" \
    org.opencontainers.image.description="An event-driven job system on RabbitMQ: intake, recorder, scheduler and workers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY --from=packages /usr/bin/tini-static /usr/local/bin/tini
COPY --from=packages /opt/dispatcher /opt/dispatcher
# a place to write to, for volumes: a new one gets this owner
COPY --from=packages --chown=10001:10001 /state /var/lib/dispatcher
# HOME: the user has no name and no home of its own. /metrics and the probes are to be reached from outside.
ENV PATH=/opt/dispatcher/bin:$PATH \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DISPATCHER_HTTP__HOST=0.0.0.0 \
    DISPATCHER_HTTP__PORT=8080
# handlers: the current folder is on Python's path
WORKDIR /handlers
# by number, so that "runAsNonRoot" can be checked
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/dispatcher/bin/python", "-I", "-S", "/opt/dispatcher/bin/healthcheck.py"]
ENTRYPOINT ["/usr/local/bin/tini", "-s", "--", "dispatcher"]
CMD ["--help"]
