from __future__ import annotations

import subprocess
import sys


def test_importing_the_store_imports_neither_alembic_nor_celery() -> None:
    code = "import sys, headrace.results_store; print({'alembic', 'celery', 'kombu'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
