"""The Celery app of a worker, with one layer more."""

from __future__ import annotations

from tests.workers.tracing_layer import Tracing

from headrace.workers.app import app
from headrace.workers.execution import pipeline

pipeline.LAYERS += (Tracing,)

__all__ = ["app"]
