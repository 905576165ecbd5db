"""The header by which a busy server says when to come back."""

import math
import time
from email.utils import parsedate_to_datetime


def seconds_of(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait that a Retry-After header asks for; None if it asks for nothing readable.

    Args:
        value: Seconds, or an HTTP date.
        now: Seconds since the epoch; the clock's if left out.
    """
    text = (value or "").strip()
    try:
        wait = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
        wait = max(0.0, date.timestamp() - (time.time() if now is None else now))
    return wait if math.isfinite(wait) and wait >= 0 else None
