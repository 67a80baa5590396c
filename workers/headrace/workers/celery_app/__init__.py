"""The engine's hooks into Celery's worker: its steps, its consumer and its event dispatcher."""
