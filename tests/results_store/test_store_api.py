from __future__ import annotations

import subprocess
import sys

import headrace.results_store


def test_the_public_names_are_these() -> None:
    assert headrace.results_store.__all__ == [
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
    assert all(hasattr(headrace.results_store, name) for name in headrace.results_store.__all__)


def test_importing_the_store_imports_neither_alembic_nor_celery() -> None:
    code = "import sys, headrace.results_store; print({'alembic', 'celery', 'kombu'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
