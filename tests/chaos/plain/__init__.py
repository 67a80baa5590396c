"""Ordinary Celery beside inference: an app that knows headrace by the URL of its broker alone."""
