"""LiteLLM's calls, each from its announcement to its first end, whatever tells of that.

LiteLLM says nothing of a call that was cancelled, nor of a stream that its reader left. But a
task that is cancelled says so, and each call has a logging object, which goes when the call does.
"""

import asyncio
import time
import weakref
from collections import OrderedDict, deque
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple, cast

from routecore.integrations.litellm.outcome import of_exception
from routecore.integrations.shared.fleet import Fleet
from routecore.integrations.shared.shadow import Choice
from routecore.integrations.shared.telemetry import Telemetry
from routecore.requests.usage import usage_in

_MAX_DEPLOYMENTS = 65_536
_MAX_OPEN = 65_536

_Key = tuple[str, str]  # deployment and call


class Seen(NamedTuple):
    """A call that is ours to count."""

    fleet: Fleet
    deployment: str
    call: str

    @property
    def key(self) -> _Key:
        """What names the call."""
        return self.deployment, self.call


class _Watch(NamedTuple):
    """What tells that a call is gone: its logging object, and the open calls of its task."""

    logged: weakref.ref[Any]
    keys: set[_Key]


# What the hook before a call learned of it, for the hook that announces it.
_BEFORE: ContextVar["tuple[_Key, _Watch] | None"] = ContextVar("routecore_call", default=None)


class Calls:
    """The calls of all deployments that some fleet of ours has."""

    def __init__(self) -> None:
        self._fleet_of: OrderedDict[str, Fleet] = OrderedDict()
        self._open: OrderedDict[_Key, _Watch | None] = OrderedDict()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], set[_Key]] = (
            weakref.WeakKeyDictionary()
        )
        self._gone: deque[_Key] = deque()  # ended without a word, not counted yet

    def __len__(self) -> int:
        return len(self._open)

    def know(self, deployments: tuple[str, ...], fleet: Fleet) -> None:
        """Deployments are of that fleet."""
        for deployment in deployments:
            self._fleet_of[deployment] = fleet
            self._fleet_of.move_to_end(deployment)
        while len(self._fleet_of) > _MAX_DEPLOYMENTS:
            self._fleet_of.popitem(last=False)

    def before(self, data: Any) -> None:
        """A call will be announced, in this context."""
        seen = self._seen(data)
        watched = data.get("litellm_logging_obj") if seen is not None else None
        if seen is None or watched is None:
            return
        loop, key = asyncio.get_running_loop(), seen.key

        def gone(_ref: Any) -> None:
            # In the middle of anything, also of our own code: only take note.
            self._gone.append(key)
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._count_gone)

        try:
            watch = weakref.ref(watched, gone)
        except TypeError:  # an object that cannot be watched
            return
        _BEFORE.set((key, _Watch(watch, self._of_task(key))))

    def _of_task(self, key: _Key) -> set[_Key]:
        """The open calls of this task, of which the key's is one now."""
        task = asyncio.current_task()
        if task is None:
            return set()
        keys = self._tasks.get(task)
        if keys is None:
            keys = self._tasks[task] = set()
            task.add_done_callback(self._task_done)
        keys.add(key)
        return keys

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        keys = self._tasks.pop(task, set())
        if task.cancelled():  # else a stream may be read on elsewhere
            self._gone.extend(keys)
            self._count_gone()

    def sent(self, data: Any, choice: Choice | None = None) -> None:
        """The call is announced; nothing changes if it is not ours, or was before.

        Args:
            data: What LiteLLM tells of it.
            choice: In shadow mode, what we would have chosen for it.
        """
        self._count_gone()
        seen = self._seen(data)
        if seen is None or seen.key in self._open:
            return
        before = _BEFORE.get()
        watch = before[1] if before is not None and before[0] == seen.key else None
        self._open[seen.key] = watch
        if len(self._open) > _MAX_OPEN:
            self._close(next(iter(self._open)))
        moved = seen.fleet.moved
        if moved is None or choice is None or not choice.waits_for(seen.fleet.shadow):
            seen.fleet.ends.on_new_request(seen.deployment, seen.call, time.time())
        else:
            moved.sent(choice, seen.deployment, seen.call, time.time())

    def served(self, data: Any, response: Any, end_time: Any = None) -> None:
        """The call was answered to its end."""
        over = self._over(data)
        if over is None:
            return
        fleet, deployment, call = over
        first = _seconds(data.get("completion_start_time"))
        if first is not None and data.get("stream"):
            fleet.ends.on_request_response(deployment, call, first)
        usage = getattr(response, "usage", None)
        if usage is not None:
            _used(fleet, deployment, call, usage)
        fleet.ends.on_request_complete(deployment, call, _seconds(end_time) or time.time())

    def failed(self, data: Any, error: Any) -> None:
        """The call failed with that exception."""
        over = self._over(data)
        if over is None:
            return
        fleet, deployment, call = over
        end, now = of_exception(error), time.time()
        if end.reason is None:
            fleet.ends.on_request_complete(deployment, call, now, end.status)
        else:
            fleet.ends.on_request_failed(deployment, call, now, end.reason, end.retry_after)

    def _count_gone(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            fleet = self._fleet_of.get(key[0])
            if fleet is not None and self._close(key):
                fleet.ends.on_request_failed(*key, time.time(), "client")

    def _over(self, data: Any) -> Seen | None:
        """As `_seen`, for the first end of a call that was counted."""
        self._count_gone()
        seen = self._seen(data)
        return seen if seen is not None and self._close(seen.key) else None

    def _close(self, key: _Key) -> bool:
        """Whether the call was open; it is not any more."""
        if key not in self._open:
            return False
        watch = self._open.pop(key)
        if watch is not None:
            watch.keys.discard(key)
        return True

    def _seen(self, data: Any) -> Seen | None:
        """Fleet, deployment and call of an event; None for a call that is not ours to count."""
        try:
            info = (data.get("litellm_params") or data).get("model_info") or data["model_info"]
            deployment, call = info["id"], data["litellm_call_id"]
        except (AttributeError, KeyError, TypeError):
            return None
        fleet = self._fleet_of.get(deployment)
        return None if fleet is None or call is None else Seen(fleet, deployment, call)


def _used(fleet: Fleet, deployment: str, call: str, usage: Any) -> None:
    found = usage_in(usage)
    if found is None:
        return
    if found.cached_tokens is not None:
        cast(Telemetry, fleet.telemetry).used(found.cached_tokens)
    fleet.ends.on_usage(deployment, call, *found)


def _seconds(moment: Any) -> float | None:
    if isinstance(moment, datetime):
        return moment.timestamp()
    return float(moment) if isinstance(moment, (int, float)) else None
