"""Help of a command with many options: under headings, as people look for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        groups: Heading → names of the parameters under it; what is in none comes last.
        *args: As for `click.Command`.
        **kwargs: As for `click.Command`.
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
