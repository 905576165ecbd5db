"""What breaks in a live demo: engines that are killed or turn sick, and when."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from routecore.demo.engine import Engine
from routecore.demo.serving import Served

_FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m):(\d+)(?::(\d+(?:\.\d+)?)(ms|s|m))?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Trouble:
    """One engine out of order.

    Attributes:
        kind: `kill`: it refuses connections, and comes back empty. `sick`: it answers 500.
        at: When, in simulated seconds.
        engine: Which one, from 0.
        lasts: For how many simulated seconds; None: to the end.
    """

    kind: Literal["kill", "sick"]
    at: float
    engine: int
    lasts: float | None = None

    @property
    def last_change(self) -> float:
        """When it ends; where it does not, when it starts."""
        return self.at + (self.lasts or 0.0)


def parse_trouble(kind: Literal["kill", "sick"], text: str, engines: int) -> Trouble:
    """Take "20s:3" or "20s:3:10s" apart.

    Raises:
        ValueError: The text has another form, or there is no such engine.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}: expected TIME:ENGINE or TIME:ENGINE:DURATION, as 20s:3:10s")
    number, unit, engine, lasts, lasts_unit = match.groups()
    if int(engine) >= engines:
        raise ValueError(f"{text!r}: there are engines 0 to {engines - 1}")
    return Trouble(
        kind,
        float(number) * _SECONDS[unit],
        int(engine),
        None if lasts is None else float(lasts) * _SECONDS[lasts_unit],
    )


class Afflictions:
    """Brings the troubles about, on each strategy's clock.

    Args:
        troubles: What happens.
        fleet: The engines and their servers.
        speed: Simulated seconds per second of the wall clock.
    """

    def __init__(
        self, troubles: Sequence[Trouble], fleet: Sequence[tuple[Engine, Served]], speed: float
    ) -> None:
        self._troubles, self._fleet, self._speed = troubles, fleet, speed
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, say: Callable[[str], None]) -> None:
        """A strategy starts now; `say` is called with what happens when it does."""
        start = time.perf_counter()
        self._tasks = [
            asyncio.create_task(self._one(trouble, start, say)) for trouble in self._troubles
        ]

    async def end(self) -> None:
        """Everybody is well again."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for engine, served in self._fleet:
            engine.sick = False
            await served.start()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _one(self, trouble: Trouble, start: float, say: Callable[[str], None]) -> None:
        engine, served = self._fleet[trouble.engine]
        await self._until(start, trouble.at)
        if trouble.kind == "sick":
            say(f"engine {trouble.engine} answers 500")
            engine.sick = True
        else:
            say(f"engine {trouble.engine} is killed")
            await served.kill()
            engine.reset()
        if trouble.lasts is None:
            return
        await self._until(start, trouble.at + trouble.lasts)
        if trouble.kind == "sick":
            engine.sick = False
        else:
            await served.start()
        say(f"engine {trouble.engine} is well again")

    async def _until(self, start: float, at: float) -> None:
        await asyncio.sleep(max(0.0, start + at / self._speed - time.perf_counter()))
