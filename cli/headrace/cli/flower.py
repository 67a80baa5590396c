"""Flower, unmodified, on the broker of headrace."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from headrace.cli.errors import MissingExtra
from headrace.cli.ports import LOOPBACK

#: Flower's own default.
DEFAULT_PORT: Final = 5555


def plain_broker_url(broker_url: str) -> str:
    """Write a broker URL as Celery's own Redis transport, and Flower's broker page, read it."""
    from headrace.queueing import redis_url

    plain = redis_url(broker_url)
    if plain.startswith("unix://"):
        return "redis+socket://" + plain.removeprefix("unix://").replace("db=", "virtual_host=")
    return plain


def flower_command() -> list[str]:
    """Give the command that runs Flower; addresses and passwords go by `flower_environment`, where `ps` can't see them.

    Raises MissingExtra when Flower is not installed.
    """
    if find_spec("flower") is None:
        raise MissingExtra('Flower is not installed; run `pip install "headrace[local]"`')
    return [sys.executable, "-m", "celery", "-A", "headrace.workers.app", "flower"]


def flower_environment(broker_url: str, port: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the environment for `flower_command`; FLOWER_* variables of the user stay, but for address and port."""
    return {
        **(os.environ if base is None else base),
        "HEADRACE_BROKER_URL": broker_url,
        "CELERY_BROKER_URL": plain_broker_url(broker_url),
        "FLOWER_ADDRESS": LOOPBACK,
        "FLOWER_PORT": str(port),
    }


def flower_url(port: int) -> str:
    """Give the address for a browser."""
    return f"http://{LOOPBACK}:{port}"
