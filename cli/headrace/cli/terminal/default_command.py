"""A group of commands, one of which runs when none is named."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class DefaultToRun(TyperGroup):
    """A group whose command `run` is meant when the first word names none of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before the words unless they name a command or ask for help."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)
