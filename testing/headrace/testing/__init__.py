"""Pytest fixtures for programs that use headrace: `pytest_plugins = ["headrace.testing"]` in a `conftest.py`.

PYTEST_DONT_REWRITE: a `conftest.py` may import this module for its types before pytest loads it as a plugin.
"""

from headrace.testing.fixtures import headrace_models, headrace_settings, headrace_stack, headrace_worker
from headrace.testing.stack import TemporaryStack
from headrace.testing.worker import BackgroundWorker

__all__ = [
    "BackgroundWorker",
    "TemporaryStack",
    "headrace_models",
    "headrace_settings",
    "headrace_stack",
    "headrace_worker",
]
