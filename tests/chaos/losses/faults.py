"""How the broker loses data: somebody flushes it, or its replica takes over without the last that it was to copy."""

from __future__ import annotations

import time
from typing import Final

from tests.chaos.cluster import Cluster, SyncingValkey
from tests.chaos.faults.wire import met
from tests.chaos.wire.proxy import tcp

#: A replica has a copy of everything by then.
SYNCED_S: Final = 30.0


def flush(cluster: Cluster) -> None:
    """Do what a wrong command in a wrong terminal does."""
    with cluster.broker() as broker:
        broker.flushall()


def fail_over(cluster: Cluster, stale_s: float) -> None:
    """Let a replica that has heard nothing for some seconds take over at the old address, and kill the master."""
    old = cluster.valkey
    new = SyncingValkey(old.folder.with_name(old.folder.name + "-next"))
    new.start()
    cluster.also_stop(new)
    with cluster.broker_of(new) as replica:
        replica.replicaof(old.host, old.port)
        if not met(lambda: replica.info("replication")["master_link_status"] == "up", SYNCED_S):
            raise AssertionError("the replica got no copy")
        replica.replicaof("NO", "ONE")
    time.sleep(stale_s)
    cluster.valkey = new
    cluster.valkey_proxy.redial(tcp(new.host, new.port))
    old.kill()
