"""The result store: the table `predictions`, its migrations, bulk writes, reads and retention; durable requests."""

from headrace.results_store import libraries  # noqa: F401

# isort: split
from headrace.results_store.database.errors import StoreRejected
from headrace.results_store.migration import check_schema, current_revision, migrate
from headrace.results_store.reading.prediction import Prediction
from headrace.results_store.reading.reader import StoreReader
from headrace.results_store.reading.statistics import ModelCount, PartitionSize, StoreStats
from headrace.results_store.writing.partitions import ensure_partitions, prune
from headrace.results_store.writing.rows import BatchRows, Row, error_json
from headrace.results_store.writing.writer import StoreWriter

__all__ = [
    "BatchRows",
    "ModelCount",
    "PartitionSize",
    "Prediction",
    "Row",
    "StoreReader",
    "StoreRejected",
    "StoreStats",
    "StoreWriter",
    "check_schema",
    "current_revision",
    "ensure_partitions",
    "error_json",
    "migrate",
    "prune",
]
