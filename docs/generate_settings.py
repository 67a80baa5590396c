"""Generator of docs/settings.md from `Settings`: `python docs/generate_settings.py`. A test compares the two."""

from __future__ import annotations

import types
import typing
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from headrace.contracts import Settings

TARGET = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

<!-- Written by docs/generate_settings.py from contracts/headrace/contracts/settings.py; change it there. -->

All settings are environment variables, the same for clients, workers and the `headrace` command. An empty variable
counts as unset. Without the two URLs, the local stack that `headrace up` started in `HEADRACE_HOME` is used.
An invalid value ends the command with an error that names the variable, but not the value, which may be secret.

| Variable | Type | Default | Meaning |
|---|---|---|---|
"""

_TYPES: dict[type, str] = {
    SecretStr: "URL",
    Path: "path",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
}


def settings_page() -> str:
    """Write the page."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return HEAD + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`HEADRACE_{name.upper()}`", _type(field) + _limits(field), _default(field), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(field: FieldInfo) -> str:
    kinds = typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else (field.annotation,)
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{word}`" for word in typing.get_args(field.annotation))
    return next(_TYPES[kind] for kind in kinds if isinstance(kind, type) and kind in _TYPES)


def _limits(field: FieldInfo) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{word} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, word in words.items()
        if hasattr(constraint, name)
    ]
    return "".join(f", {limit}" for limit in limits)


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None:
        return "the local stack" if SecretStr in typing.get_args(field.annotation) else "a temporary folder"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:,}`".replace(",", "_") if isinstance(default, int) else f"`{default}`"


if __name__ == "__main__":
    TARGET.write_text(settings_page(), "utf-8")
