"""Numbers on the command line, refused in the words of all our errors."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _OfInt = click.ParamType[int]
    _OfFloat = click.ParamType[float]
else:  # before 8.5 it took no type
    _OfInt = _OfFloat = click.ParamType


class Whole(_OfInt):
    """An integer within bounds.

    Args:
        low: The least.
        high: The most; None for none.
    """

    low: int
    high: int | None

    name = "integer"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that the text stands for."""
        try:
            number = int(value)
        except ValueError:
            number = self.low - 1
        if number < self.low or (self.high is not None and number > self.high):
            self.fail(f"expected an integer {_range(self.low, self.high)}, got {value!s}", param)
        return number


class Decimal(_OfFloat):
    """A number within bounds.

    Args:
        low: The least.
        high: The most; None for none.
    """

    low: float
    high: float | None

    name = "number"

    def __init__(self, low: float, high: float | None = None) -> None:
        self.low, self.high = low, high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that the text stands for."""
        try:
            number = float(value)
        except ValueError:
            number = self.low - 1
        most = float("inf") if self.high is None else self.high
        if not self.low <= number <= most or number == float("inf"):
            self.fail(f"expected a number {_range(self.low, self.high)}, got {value!s}", param)
        return number


def _range(low: float, high: float | None) -> str:
    return f"from {low:,} up" if high is None else f"from {low:,} to {high:,}"
