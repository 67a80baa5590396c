"""Where the engine hooks into Celery's worker: its steps, its consumer and its events."""
