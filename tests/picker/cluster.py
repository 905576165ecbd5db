"""A stand-in of a Kubernetes API server: list and watch, with all that goes wrong in them."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

KINDS = {
    "pods": "/api/v1/namespaces/{ns}/pods",
    "endpointslices": "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices",
    "inferencepools": "/apis/inference.networking.k8s.io/v1/namespaces/{ns}/inferencepools",
}


class Cluster:
    """Its objects, their history, and what is to go wrong.

    Attributes:
        asked: Queries, in order: (kind, query).
        statuses: Statuses to answer the next requests with, instead.
        is_down: Whether it answers nothing but errors.
        page: Items of a page.
        gone_by_event: Whether a watch from too far back learns so by an event, or by the status.
    """

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        self.objects: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.history: list[tuple[int, str, dict[str, Any] | None, dict[str, Any]]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.statuses: list[int] = []
        self.is_down = False
        self.page = 1000
        self.gone_by_event = True
        self.watches: set[Any] = set()
        self.counts: Counter[str] = Counter()
        self.held: dict[str, list[dict[str, Any]]] = {}
        self._changed = asyncio.Event()

    # What happens in the cluster.

    def put(self, kind: str, name: str, made: dict[str, Any]) -> None:
        """Make or change an object."""
        self.version += 1
        meta = {"labels": {}, **made.get("metadata", {}), "name": name, "namespace": "prod"}
        new = {**made, "metadata": {**meta, "resourceVersion": str(self.version)}}
        old = self.objects[kind].get(name)
        self.objects[kind][name] = new
        self._tell(kind, old, new)

    def delete(self, kind: str, name: str) -> None:
        self.version += 1
        old = self.objects[kind].pop(name)
        meta = {**old["metadata"], "resourceVersion": str(self.version), "deleted": True}
        self._tell(kind, old, {**old, "metadata": meta})

    def forget(self) -> None:
        """Compact the history: who watches from before must list again."""
        self.oldest = self.version
        self.history.clear()

    def cut(self) -> None:
        """Cut every watch, as a load balancer or a restart does."""
        while self.watches:
            self.watches.pop().abort()

    def bookmark(self) -> None:
        """Send a bookmark: the version moves on without an object that anybody watches."""
        self.version += 7
        self.history.append((self.version, "bookmark", None, {}))
        self._wake()

    def _tell(self, kind: str, old: dict[str, Any] | None, new: dict[str, Any]) -> None:
        self.history.append((self.version, kind, old, new))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # What it answers.

    def app(self) -> web.Application:
        app = web.Application()
        for kind, path in KINDS.items():

            async def answer(request: web.Request, kind: str = kind) -> web.StreamResponse:
                return await self._answer(kind, request)

            app.router.add_get(path, answer)
        return app

    async def _answer(self, kind: str, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append((kind, query))
        if self.is_down:
            return web.json_response({"kind": "Status"}, status=503)
        if self.statuses:
            return web.json_response({"kind": "Status"}, status=self.statuses.pop(0))
        if query.get("watch") in ("true", "True"):
            self.counts["watches"] += 1
            return await self._watch(kind, query, request)
        self.counts["lists"] += 1
        items = [o for o in self.objects[kind].values() if matches(o, query)]
        at = int(query.get("continue", "0"))
        page, rest = items[at : at + self.page], items[at + self.page :]
        meta = {"resourceVersion": str(self.version)}
        if rest:
            meta["continue"] = str(at + self.page)
        return web.json_response({"kind": "List", "metadata": meta, "items": page})

    async def _watch(
        self, kind: str, query: dict[str, str], request: web.Request
    ) -> web.StreamResponse:
        at = int(query["resourceVersion"])
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        if at < self.oldest and not self.gone_by_event:
            return web.json_response(gone, status=410)
        answer = web.StreamResponse(headers={"content-type": "application/json"})
        await answer.prepare(request)
        transport = request.transport
        self.watches.add(transport)
        try:
            while True:
                if at < self.oldest:
                    await send(answer, "ERROR", gone)
                    return answer
                changed = self._changed
                for version, about, old, new in list(self.history):
                    if version <= at:
                        continue
                    at = version
                    if about == "bookmark":
                        mark = {"metadata": {"resourceVersion": str(version)}}
                        if query.get("allowWatchBookmarks"):
                            await send(answer, "BOOKMARK", mark)
                    elif about == kind:
                        await self._event(answer, query, old, new)
                await changed.wait()
        except (ConnectionError, asyncio.CancelledError):
            raise
        finally:
            self.watches.discard(transport)

    @staticmethod
    async def _event(
        answer: web.StreamResponse, query: dict[str, str], old: Any, new: dict[str, Any]
    ) -> None:
        """As the API tells it to who selects: an object that matches no longer is deleted."""
        was = old is not None and matches(old, query)
        now = not new["metadata"].get("deleted") and matches(new, query)
        if was or now:
            kind = "DELETED" if not now else "MODIFIED" if was else "ADDED"
            await send(answer, kind, new)


async def send(answer: web.StreamResponse, kind: str, made: dict[str, Any]) -> None:
    """An event, in two pieces, as networks cut them."""
    raw = json.dumps({"type": kind, "object": made}).encode() + b"\n"
    await answer.write(raw[:20])
    await answer.write(raw[20:])


def matches(made: dict[str, Any], query: dict[str, str]) -> bool:
    labels = made["metadata"].get("labels", {})
    wanted = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
    if any(labels.get(name) != value for name, _, value in wanted):
        return False
    field = query.get("fieldSelector", "")
    return not field or field == f"metadata.name={made['metadata']['name']}"


def pod(ip: str, *, ready: bool = True, going: bool = False, **labels: str) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "labels": labels or {"app": "vllm"},
        "annotations": {"a": "x" * 100_000},
    }
    if going:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {
        "podIP": ip,
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": str(ready)},
        ],
    }
    return {"metadata": meta, "spec": {"containers": []}, "status": status}


def pool(*ports: int, **labels: str) -> dict[str, Any]:
    return {
        "spec": {
            "selector": {"matchLabels": labels or {"app": "vllm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker"},
        }
    }


@contextlib.asynccontextmanager
async def cluster(folder: Path, monkeypatch: Any) -> AsyncIterator[Cluster]:
    """A cluster that the kubeconfig names."""
    from routecore.integrations.envoy.endpoints import reflector

    monkeypatch.setattr(reflector, "_SHORTEST", 0.01)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    made = Cluster()
    runner = web.AppRunner(made.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    try:
        yield made
    finally:
        made.cut()
        await runner.cleanup()
