"""Parameters of an inference request: those that headrace honours, and those it must refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.contracts.errors import quoted
from headrace.contracts.message import MAX_PRIORITY
from headrace.gateway.oip.errors import MalformedBody, NotSupported

#: Microseconds of ten years; a longer limit is a mistake of units.
_LONGEST_US: Final = 3650 * 86_400 * 1_000_000

#: Parameters that change what a request means, where headrace has nothing like it.
_REFUSED: Final = {
    "sequence_id": "sequences: every request stands alone",
    "sequence_start": "sequences: every request stands alone",
    "sequence_end": "sequences: every request stands alone",
    "shared_memory_region": "shared memory; send the tensor's bytes",
    "classification": "the classification extension; take the scores and choose",
}

#: What to do with NaN and infinity in a JSON answer, by `nonfinite`.
NONFINITE: Final = ("refuse", "null", "literal")


class Parameters(msgspec.Struct, frozen=True):
    """The parameters of a request that count.

    timeout_s: seconds from now, None without a limit. priority: as of headrace, 9 is the most urgent. binary: whether
    outputs come as bytes unless one says otherwise. nonfinite: one of NONFINITE.
    """

    timeout_s: float | None = None
    priority: int = 0
    binary: bool = False
    nonfinite: str = "refuse"


_DEFAULTS: Final = Parameters()


def read_parameters(given: Mapping[str, Any] | None) -> Parameters:
    """Read the parameters of a request. Raises MalformedBody and NotSupported."""
    if not given:
        return _DEFAULTS
    refuse_unsupported(given, "parameters")
    nonfinite = given.get("nonfinite", "refuse")
    if nonfinite not in NONFINITE:
        raise MalformedBody(f"nonfinite must be one of {', '.join(NONFINITE)}", "parameters.nonfinite")
    timeout_us = _count(given, "timeout", _LONGEST_US)
    return Parameters(
        timeout_s=timeout_us / 1_000_000 if timeout_us else None,
        priority=_priority(_count(given, "priority", 2**64 - 1)),
        binary=flag(given, "binary_data_output", "parameters") or False,
        nonfinite=nonfinite,
    )


def refuse_unsupported(given: Mapping[str, Any], where: str) -> None:
    """Raise NotSupported for a parameter that headrace can't honour, unless it is off. where: place of `given`."""
    for name, what in _REFUSED.items():
        if given.get(name):
            raise NotSupported(f"{name} asks for {what}", f"{where}.{name}")


def flag(given: Mapping[str, Any] | None, name: str, where: str) -> bool | None:
    """Return a parameter that is true or false, None if it isn't there. Raises MalformedBody."""
    value = (given or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise MalformedBody(f"{name} must be true or false, not {quoted(value)}", f"{where}.{name}")
    return value


def _count(given: Mapping[str, Any], name: str, most: int) -> int:
    value = given.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise MalformedBody(
            f"{name} must be a whole number from 0 to {most}, not {quoted(value)}", f"parameters.{name}"
        )
    return value


def _priority(given: int) -> int:
    """Return headrace's priority for one of Triton's, where 1 is the most urgent and 0 the default."""
    return max(0, MAX_PRIORITY + 1 - given) if given else 0
