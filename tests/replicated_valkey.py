"""A Valkey with a replica, and a failover that loses what the replica has not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from tests.chaos.wire.proxy import Proxy, ProxyLoop, tcp
from tests.eventually import eventually

from headrace.cli.stack.servers import Valkey


def wait_for_replica(client: redis.Redis) -> None:
    """Wait until a replica has everything that anybody wrote before this call.

    WAIT alone waits for the writes of its own connection, and for none if there are none.
    """
    with client.pipeline(transaction=False) as one_connection:
        one_connection.set("tests:written", 1, px=1)
        one_connection.wait(1, 5_000)
        assert one_connection.execute()[1] >= 1


@contextmanager
def replicated(loop: ProxyLoop, folder: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Start a primary and its replica behind one URL; yield it, what stops the replication, and the failover."""
    with Valkey(folder / "primary") as primary, Valkey(folder / "replica") as replica:
        target = [primary]
        proxy = Proxy(loop, lambda: tcp(target[0].host, target[0].port)())
        proxy.start()
        with redis.Redis(host=replica.host, port=replica.port) as admin:
            admin.replicaof(primary.host, primary.port)
            eventually(lambda: admin.info("replication")["master_link_status"] == "up", 60, "the replica")

            def fall_behind() -> None:
                with redis.Redis(host=primary.host, port=primary.port) as source:
                    wait_for_replica(source)
                admin.replicaof("NO", "ONE")

            def fail_over() -> None:
                primary.kill()
                target[0] = replica
                proxy.cut()

            try:
                yield f"redis://127.0.0.1:{proxy.port}/0", fall_behind, fail_over
            finally:
                proxy.stop()
