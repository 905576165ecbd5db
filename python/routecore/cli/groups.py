"""Commands with many options: help under headings, and a word on arguments that are too many."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from routecore.cli.errors import bad

_ARGS = "routecore.args"


def typed() -> str:
    """The command line that runs, to be typed again."""
    ctx = click.get_current_context()
    return shlex.join([*ctx.command_path.split(), *ctx.meta.get(_ARGS, ())])


class Strict(click.Command):
    """A command that says what to do about arguments it does not take.

    Args:
        extra: What to say of them, with `{}` for the first one.
        *args: As for `click.Command`.
        **kwargs: As for `click.Command`.
    """

    def __init__(self, *args: Any, extra: str = "unexpected {}", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command line apart."""
        ctx.allow_extra_args = True
        ctx.meta[_ARGS] = list(args)
        try:
            left = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        if ctx.args and not ctx.resilient_parsing:
            bad(self.extra.format(ctx.args[0]))
        return left


class GroupedCommand(Strict):
    """A command whose help lists its options under headings.

    Args:
        groups: Heading → names of the parameters under it; what is in none comes last.
        *args: As for `Strict`.
        **kwargs: As for `Strict`.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section a heading."""
        left = {
            param.name: param for param in self.get_params(ctx) if isinstance(param, click.Option)
        }
        for heading, names in self.groups.items():
            rows = [left.pop(name).get_help_record(ctx) for name in names if name in left]
            self._section(formatter, heading, rows)
        self._section(formatter, "Other", [param.get_help_record(ctx) for param in left.values()])

    @staticmethod
    def _section(
        formatter: click.HelpFormatter, heading: str, rows: Sequence[tuple[str, str] | None]
    ) -> None:
        shown = [row for row in rows if row is not None]
        if shown:
            with formatter.section(heading):
                formatter.write_dl(shown)
