"""Cost of importing the room."""

from __future__ import annotations

import subprocess
import sys


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import headrace.producers, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"onnxruntime", "onnx", "torch", "sqlalchemy", "celery", "psycopg", "alembic"}
