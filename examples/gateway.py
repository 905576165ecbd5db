"""An OpenAI-compatible gateway: streams answers, and tries another engine where one fails.

    ENGINES=http://engine-1:8000,http://engine-2:8000 uvicorn --app-dir examples gateway:app

HOLD=1 lets requests wait until an engine has room, and answers 429 where too many do.
STATE=fleet.state keeps what was learned over a restart.
Needs: pip install starlette uvicorn httpx
"""

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from routecore import Fleet, Rejected, RouteError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

engines = os.environ.get("ENGINES", "http://127.0.0.1:8000").split(",")
fleet = Fleet(engines, hold=bool(os.environ.get("HOLD")))
client = httpx.AsyncClient(timeout=httpx.Timeout(600, connect=2))


async def forward(path: str, body: dict[str, Any], content: bytes) -> AsyncIterator[Any]:
    """The engine's answer, then its pieces. Whatever ends this, ends the request's load."""
    async with fleet.request(body) as routed:
        while True:
            sent = client.build_request("POST", routed.url + path, content=content)
            sent.headers["content-type"] = "application/json"
            try:
                answer = await client.send(sent, stream=True)
            except httpx.TransportError as error:
                routed.retry(error)
                continue
            routed.status(answer.status_code, answer.headers.get("retry-after"))
            if answer.status_code < 500 or len(routed.tried) + 1 == len(fleet.endpoints):
                break
            await answer.aclose()
            routed.retry("status")
        yield answer
        async for piece in answer.aiter_raw():
            routed.first_token()
            yield piece


async def serve(request: Request) -> Response:
    content = await request.body()
    try:
        pieces = forward(request.url.path, json.loads(content), content)
        answer = await anext(pieces)
    except Rejected as full:  # where the fleet has a hold
        after = {"Retry-After": f"{full.retry_after_s:.0f}"}
        return JSONResponse({"error": {"message": str(full)}}, full.status, after)
    except ValueError as error:  # no JSON; a RouteError is one, too
        code = 502 if isinstance(error, RouteError) else 400
        return JSONResponse({"error": {"message": str(error)}}, code)
    kind = answer.headers.get("content-type", "application/json")
    return StreamingResponse(pieces, answer.status_code, media_type=kind)


@contextlib.asynccontextmanager
async def warm(_: Starlette) -> AsyncIterator[None]:
    """Starts with what was learned before, and writes it down at the end."""
    state = os.environ.get("STATE")
    try:
        if state and not fleet.load(state):
            logging.info("%s: none yet, the fleet learns anew", state)
    except RouteError as error:  # damaged, or of another version
        logging.warning("%s", error)
    yield
    if state:
        fleet.save(state)


app = Starlette(routes=[Route("/v1/{path:path}", serve, methods=["POST"])], lifespan=warm)
