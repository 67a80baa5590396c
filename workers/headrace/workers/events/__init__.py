"""Celery events, counters and active requests, as Flower and `celery inspect` show them."""
