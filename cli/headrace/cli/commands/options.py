"""Options that several commands share, and the settings with what the command line says instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.contracts.settings import Settings, load_settings

#: `--models`; without it HEADRACE_MODELS, the running local stack's, or `models`.
Models = Annotated[
    Path | None,
    typer.Option(
        "--models", metavar="DIR", show_default="models", help="Folder of model packages; also HEADRACE_MODELS."
    ),
]


def settings_with(**overrides: Any) -> Settings:
    """Read the settings; an override that is not None wins. Raises ConfigurationError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings().model_copy(update=given)
