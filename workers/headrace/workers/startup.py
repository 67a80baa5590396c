"""Checks of store and broker before a worker serves."""

from __future__ import annotations

import logging
import time

import psycopg
import redis

from headrace.contracts import BrokerUnavailable, Settings
from headrace.queueing import broken_preconditions, translate_errors
from headrace.results_store import check_schema, ensure_partitions
from headrace.results_store.database import address
from headrace.results_store.database.errors import READ_ONLY_HINT, StoreBusy
from headrace.results_store.writing.partitions import is_read_only
from headrace.workers.outbox.outbox import RETRY_S

logger = logging.getLogger(__name__)


def check_store(settings: Settings) -> None:
    """Check the schema, however long Postgres has no connection to spare; SIGTERM still ends the process here."""
    waited = False
    while True:
        try:
            check_schema(settings.require_database_url())
        except StoreBusy as exc:
            if not waited:
                waited = True
                logger.warning("store away, waiting for a connection: %s", exc.message)
            time.sleep(RETRY_S)
        else:
            break
    if waited:
        logger.warning("store back")


def check_broker(client: redis.Redis) -> None:
    """Log the settings of the server by which it may lose what it has accepted."""
    try:
        with translate_errors():
            broken = broken_preconditions(client)
    except BrokerUnavailable:
        return  # logged when the consumer connects
    for line in broken:
        logger.warning("broker: %s", line)


def keep_partitions(settings: Settings) -> None:
    """Create the partitions of the coming days; rows of a day without one go to the default partition meanwhile."""
    try:
        with address.connect(settings.require_database_url(), settings.database_timeout_s) as connection:
            if is_read_only(connection):
                logger.warning("store takes no writes, results will wait in the workers; %s", READ_ONLY_HINT)
            else:
                ensure_partitions(connection)
    except psycopg.Error as exc:
        logger.warning("partitions of the coming days were not made; trying again later: %s", type(exc).__name__)
