"""Workers: the Celery app, the intake, the micro-batcher, the executor, the outbox and the runtimes."""

from headrace.workers.process.supervisor import run_workers

__all__ = ["run_workers"]
