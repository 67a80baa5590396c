"""The processor that a model runs on; figures measured on one are no guide to another."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Linux lists its processors here; other systems have no such file.
_CPUINFO: Final = Path("/proc/cpuinfo")

#: Fields that Arm's Linux has instead of a "model name"; together they identify a core design.
_ARM_KEYS: Final = ("CPU implementer", "CPU part", "CPU variant")


@functools.cache
def processor_name() -> str:
    """Name this machine's processor as people know it, such as `AMD EPYC 9654`; at least its architecture."""
    try:
        text = _CPUINFO.read_text("utf-8", "replace")
    except OSError:
        text = ""
    return name_in(text) or platform.processor() or platform.machine() or "unknown"


def name_in(cpuinfo: str) -> str:
    """Read a processor's name out of the text of /proc/cpuinfo; empty when it isn't there."""
    first = _first_entry(cpuinfo)
    if first.get("model name"):
        return first["model name"]
    return " ".join(f"{key} {first[key]}" for key in _ARM_KEYS if first.get(key))


def _first_entry(cpuinfo: str) -> Mapping[str, str]:
    entry: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        entry.setdefault(key.strip(), " ".join(value.split()))
    return entry


def place_of(device: str) -> str:
    """Name this machine and the kind of a device, such as `AMD EPYC 9654, cpu`; `cuda:1` counts as `cuda`.

    Two places of the same name run a model at about the same pace. A GPU is not named: the processor stands for
    the machine it is in.
    """
    return f"{processor_name()}, {device.partition(':')[0]}"
