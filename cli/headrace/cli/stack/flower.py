"""Flower, unmodified, on the broker of headrace."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from headrace.cli.stack.ports import LOOPBACK
from headrace.cli.terminal.errors import MissingExtra

#: Flower's own default.
DEFAULT_PORT: Final = 5555

#: Tasks that Flower keeps, 6 kB each. A busy worker shows it some 100 a second: its own default of 100,000 would fill
#: 600 MB within the hour.
MAX_TASKS: Final = 20_000


def plain_broker_url(broker_url: str) -> str:
    """Write a broker URL as Celery's own Redis transport and Flower read it; one of Sentinels, as ours does."""
    from headrace.queueing import headrace_url, redis_url, sentinels_of

    if sentinels_of(broker_url) is not None:
        return headrace_url(broker_url)
    plain = redis_url(broker_url)
    if plain.startswith("unix://"):
        return "redis+socket://" + plain.removeprefix("unix://").replace("db=", "virtual_host=")
    return plain


def flower_command() -> list[str]:
    """Return the command that runs Flower.

    Addresses and passwords go by `flower_environment`, where `ps` can't see them. Raises MissingExtra when Flower is
    not installed.
    """
    if find_spec("flower") is None:
        raise MissingExtra('Flower is not installed; run `pip install "headrace[local]"`')
    return [sys.executable, "-m", "celery", "-A", "headrace.workers.app", "flower"]


def flower_environment(
    broker_url: str, port: int, base: Mapping[str, str] | None = None, *, address: str = LOOPBACK
) -> dict[str, str]:
    """Return the environment for `flower_command`; FLOWER_* variables of the user stay, except address and port."""
    return {
        "FLOWER_MAX_TASKS": str(MAX_TASKS),
        **(os.environ if base is None else base),
        "HEADRACE_BROKER_URL": broker_url,
        "CELERY_BROKER_URL": plain_broker_url(broker_url),
        "FLOWER_ADDRESS": address,
        "FLOWER_PORT": str(port),
    }


def flower_url(port: int, address: str = LOOPBACK) -> str:
    """Return the address for a browser; one on this machine where Flower listens on all addresses."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address, address)  # noqa: S104 — listening is the caller's choice
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_open(address: str, environment: Mapping[str, str]) -> bool:
    """Return whether other machines reach Flower without a password."""
    if any(environment.get(name) for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH")):
        return False
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address != "localhost"
