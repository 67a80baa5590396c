# syntax=docker/dockerfile:1
# One image for the worker, the gateway, the migration and Flower; docker-compose.yml says which of them a container is.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY contracts contracts
COPY queueing queueing
COPY results_store results_store
COPY runtimes runtimes
COPY lifecycle lifecycle
COPY bulk bulk
COPY producers producers
COPY workers workers
COPY reporting reporting
COPY compression compression
COPY gateway gateway
COPY cli cli
COPY testing testing
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# Flower by itself: the `local` extra would add a Valkey and a Postgres, which have containers of their own here.
RUN python -m venv /opt/headrace \
    && /opt/headrace/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
        "$(ls /wheels/headrace-*.whl)[worker,tfserving,gateway]" "flower>=2.0.1"

FROM python:3.13-slim
LABEL org.opencontainers.image.title="headrace" \
      org.opencontainers.image.description="Distributed, asynchronous inference workers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin headrace \
    && mkdir /models
WORKDIR /models
USER 10001:10001
CMD ["headrace", "--help"]
