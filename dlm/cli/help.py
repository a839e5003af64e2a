"""The help of commands, without types in Python's words."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class PlainGroup(TyperGroup):
    """A group whose `--help`, and that of its commands, takes no value and shows none."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help` of the group."""
        return _without_value(super().get_help_option(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name, None if there is none."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            _without_value(found.get_help_option(ctx))
        return found


def _without_value(option: Any) -> Any:
    """An option that has no place for a value in the help; typer shows `<bool>` for `--help`."""
    if option is not None:
        option.metavar = ""
    return option
