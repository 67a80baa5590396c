"""Workers: the Celery app, the intake, the micro-batcher, the executor with its layers, and the outbox."""

from headrace.workers.process.supervisor import run_workers

__all__ = ["run_workers"]
