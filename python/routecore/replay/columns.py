"""A trace while it is built: rows go in, packed columns go to the compiled replay."""

from array import array
from collections.abc import Sequence

from routecore import _core
from routecore.errors import RouteError

_CHUNK = 4096
_MOST_TOKENS = 1 << 30
_MOST_OUTPUT = 1 << 22  # far above what any engine generates; a replay steps through each


class Trace:
    """Requests to replay, held compactly in Rust: 4 bytes a block, some 50 a request.

    Args:
        block: Tokens that one block id stands for.
        name: What reports call it.

    Attributes:
        skipped: Lines of its file that were no requests and were left out.
    """

    def __init__(self, block: int, name: str = "trace") -> None:
        if not 1 <= block <= _MOST_TOKENS:
            raise RouteError(f"block size: expected tokens from 1 to {_MOST_TOKENS}, got {block}")
        self.name = name
        self.skipped = 0
        self.block = block
        self._core = _core.Trace(block)
        self._rows = 0
        self._sessions: dict[str | int, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._arrival, self._delay = array("d"), array("d")
        self._input, self._output = array("I"), array("I")
        self._session = array("q")
        self._ids, self._id_counts = array("Q"), array("I")
        self._after, self._after_counts = array("I"), array("I")

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"<Trace {self.name}, {self._rows} requests>"

    def add(
        self,
        arrival_ms: float,
        input_tokens: int,
        output_tokens: int,
        ids: Sequence[int] = (),
        *,
        session: str | int | None = None,
        after: Sequence[int] = (),
        delay_ms: float = 0.0,
    ) -> int:
        """Append a request and return its number.

        Args:
            arrival_ms: Arrival; ignored for a request that waits for others.
            input_tokens: Prompt tokens, at least 1.
            output_tokens: Tokens it generates, at least 1.
            ids: One a block of the prompt, 0 to 2**64 - 1: equal id, equal prefix up to there.
                Ids behind the prompt name the blocks of the output, which a next turn may reuse.
            session: What the session is called.
            after: Numbers of the requests that must end first.
            delay_ms: From the last of those ends to this arrival.

        Raises:
            ValueError: "field: reason", for a value out of range. Nothing is added then.
        """
        for field, tokens, most in (
            ("input_length", input_tokens, _MOST_TOKENS),
            ("output_length", output_tokens, _MOST_OUTPUT),
        ):
            if not 1 <= tokens <= most:
                raise ValueError(f"{field}: expected from 1 to {most} tokens, got {tokens}")
        if not -1e15 < arrival_ms < 1e15:
            raise ValueError(f"timestamp: expected finite milliseconds, got {arrival_ms}")
        if not 0 <= delay_ms < 1e15:
            raise ValueError(f"delay: expected finite milliseconds ≥ 0, got {delay_ms}")
        try:
            packed = array("Q", ids)
        except (OverflowError, TypeError):
            raise ValueError("hash_ids: expected integers from 0 to 2**64 - 1") from None
        number = self._rows
        self._ids.extend(packed)
        self._id_counts.append(len(packed))
        self._after.extend(after)
        self._after_counts.append(len(after))
        self._arrival.append(arrival_ms)
        self._delay.append(delay_ms)
        self._input.append(input_tokens)
        self._output.append(output_tokens)
        at = -1 if session is None else self._sessions.setdefault(session, len(self._sessions))
        self._session.append(at)
        self._rows += 1
        if len(self._arrival) >= _CHUNK:
            self._flush()
        return number

    def _flush(self) -> None:
        self._core.extend(
            arrival=self._arrival,
            input=self._input,
            output=self._output,
            session=self._session,
            delay=self._delay,
            id_counts=self._id_counts,
            ids=self._ids,
            after_counts=self._after_counts,
            after=self._after,
        )
        self._clear()

    def head(self, rows: int) -> "Trace":
        """The first `rows` requests (all, if there are fewer) as a trace of their own."""
        head = Trace(self.block, f"{self.name}, first {min(rows, len(self))} requests")
        head._core, head._rows = self.core.head(rows), min(rows, len(self))
        head._sessions = dict(self._sessions)
        return head

    @property
    def core(self) -> _core.Trace:
        """The compiled half, with every row added so far."""
        if self._arrival:
            self._flush()
        return self._core
