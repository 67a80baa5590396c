"""What it costs that a request is durable: against one that is not, and in an application's own transaction.

Starts a Valkey and a Postgres of its own. Usage: python benchmarks/durable.py [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import redis
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.orm import Session

from headrace.cli.stack.servers import Postgres, Valkey
from headrace.contracts import Settings
from headrace.producers import AsyncClient, Client
from headrace.results_store import migrate

MODEL = "mlp"
ROWS = np.random.default_rng(0).random((16_384, 64), np.float32)

#: Rows of one call, and tasks that submit at the same time.
TOGETHER = 64

#: Calls, and transactions, of one round.
CALLS = 100


def per_s(count: int, run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def calls_of_64(client: Client, *, durable: bool) -> float:
    rows = {"x": ROWS[:TOGETHER]}

    def run() -> None:
        for _ in range(CALLS):
            client.submit_many(MODEL, rows, durable=durable)

    return per_s(CALLS * TOGETHER, run)


def one_call(client: Client, *, durable: bool) -> float:
    return per_s(len(ROWS), lambda: client.submit_many(MODEL, {"x": ROWS}, durable=durable))


def tasks(settings: Settings, *, durable: bool) -> float:
    """TOGETHER tasks, each of which submits one request after the other."""
    row = {"x": ROWS[:1]}

    async def submit(client: AsyncClient) -> None:
        for _ in range(CALLS // 4):
            await client.submit(MODEL, row, durable=durable)

    async def run() -> float:
        async with AsyncClient(settings) as client:
            await submit(client)
            start = time.perf_counter()
            await asyncio.gather(*(submit(client) for _ in range(TOGETHER)))
            return TOGETHER * (CALLS // 4) / (time.perf_counter() - start)

    return asyncio.run(run())


def transaction_ms(begin: Callable[[], None], commit: Callable[[], None]) -> float:
    """Median milliseconds of a transaction, without the commit, whose wait for the disk hides all else."""
    found = []
    for _ in range(CALLS):
        start = time.perf_counter()
        begin()
        found.append(time.perf_counter() - start)
        commit()
    return 1000 * statistics.median(found)


INSERT = "INSERT INTO orders (what) VALUES ('x')"


def overhead_psycopg_ms(client: Client, url: str, *, submits: bool) -> float:
    with psycopg.connect(url) as connection:

        def begin() -> None:
            connection.execute(INSERT)
            if submits:
                client.submit(MODEL, {"x": ROWS[:1]}, connection=connection)

        return transaction_ms(begin, connection.commit)


def overhead_sqlalchemy_ms(client: Client, url: str, *, submits: bool) -> float:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with Session(engine) as session:

        def begin() -> None:
            session.execute(sa.text(INSERT))
            if submits:
                client.submit(MODEL, {"x": ROWS[:1]}, connection=session)

        found = transaction_ms(begin, session.commit)
    engine.dispose()
    return found


def measure(settings: Settings, rounds: int) -> dict[str, float]:
    broker_url, url = settings.require_broker_url(), settings.require_database_url()
    kinds: dict[str, Callable[[bool], float]] = {}
    found: dict[str, dict[bool, list[float]]] = {}
    with Client(settings) as client, redis.Redis.from_url(broker_url) as broker, psycopg.connect(url) as admin:
        admin.execute("CREATE TABLE orders (id bigserial PRIMARY KEY, what text)")
        admin.commit()
        kinds["calls of 64 rows, per s"] = lambda durable: calls_of_64(client, durable=durable)
        kinds["one call of 16,384 rows, per s"] = lambda durable: one_call(client, durable=durable)
        kinds["64 tasks, per s"] = lambda durable: tasks(settings, durable=durable)
        kinds["psycopg transaction, ms"] = lambda submits: overhead_psycopg_ms(client, url, submits=submits)
        kinds["SQLAlchemy transaction, ms"] = lambda submits: overhead_sqlalchemy_ms(client, url, submits=submits)
        for _ in range(rounds):
            for name, run in kinds.items():
                for durable in (False, True):
                    broker.delete(f"infer.{MODEL}")
                    found.setdefault(name, {}).setdefault(durable, []).append(run(durable))
            admin.execute("TRUNCATE headrace_requests")
            admin.commit()
    figures: dict[str, float] = {}
    for name, both in found.items():
        plain, durable_ = statistics.median(both[False]), statistics.median(both[True])
        figures[f"{name}: plain"], figures[f"{name}: durable"] = plain, durable_
        if name.endswith("per s"):
            figures[f"{name}: durable ÷ plain"] = durable_ / plain
        else:
            figures[f"{name}: durable less plain"] = durable_ - plain
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-durable-") as name:
        folder = Path(name)
        with Valkey(folder / "valkey") as valkey, Postgres(folder / "postgres") as postgres:
            migrate(postgres.url)
            settings = Settings(
                broker_url=SecretStr(valkey.url), database_url=SecretStr(postgres.url), models="absent", queue_limit=0
            )
            figures = measure(settings, arguments.rounds)
    if arguments.json:
        json.dump(figures, sys.stdout)
        return
    for name, value in figures.items():
        print(f"{name:>50} {value:12,.2f}")


if __name__ == "__main__":
    main()
