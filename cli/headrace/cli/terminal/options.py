"""Options that several commands share, and the settings as the command line overrides them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import Settings, load_settings

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def seconds(text: str) -> float:
    """Return the seconds of an age such as `90s`, `15m`, `12h` or `7d`."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not an age; write 90s, 15m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated option, without blanks around them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


#: `--models`; without it HEADRACE_MODELS, the running local stack's, or `models`.
Models = Annotated[
    Path | None,
    typer.Option(
        "--models", metavar="DIR", show_default="models", help="Folder of model packages; also HEADRACE_MODELS."
    ),
]

#: `--device`; without it HEADRACE_DEVICE.
Device = Annotated[
    str | None, typer.Option("--device", show_default="cpu", help="Device: cpu, cuda, cuda:1 or tensorrt.")
]


def settings_with(**overrides: Any) -> Settings:
    """Read the settings; an override that is not None wins. Raises ConfigurationError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings().model_copy(update=given)


def directory_of(models: Path | None) -> ModelDirectory:
    """Return the model directory of `--models`. Raises ConfigurationError."""
    return ModelDirectory(settings_with(models=models).models)
