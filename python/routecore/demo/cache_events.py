"""What a live demo receives of its engines' caches: their event sockets, and who listens."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from routecore.demo.engine import prompt_text, toy_tokens
from routecore.endpoints.stats import EndpointInfo

if TYPE_CHECKING:
    from routecore.demo.events import EventPublisher
    from routecore.kv_events import KVIndex


@contextlib.contextmanager
def publishers(count: int) -> "Iterator[list[EventPublisher]]":
    """So many engines' event sockets."""
    import zmq

    from routecore.demo.events import EventPublisher

    with zmq.Context[zmq.Socket[bytes]]() as context:
        made: list[EventPublisher] = []
        try:
            for _ in range(count):
                made.append(EventPublisher(context))
            yield made
        finally:
            for publisher in made:
                publisher.close()


@contextlib.contextmanager
def listening(infos: list[EndpointInfo], publishers: "list[EventPublisher]") -> "Iterator[KVIndex]":
    """Hears the engines' events; gives the index of what they hold."""
    from routecore.kv_events import KVEventSubscriber, KVSource

    sources = [
        KVSource(info.url, publisher.address, publisher.replay)
        for info, publisher in zip(infos, publishers, strict=True)
    ]
    subscriber = KVEventSubscriber(sources)
    try:
        yield subscriber.index
    finally:
        subscriber.close()


def token_ids(body: dict[str, Any]) -> Any:
    """Token ids of a body's prompt, as the engines make them."""
    return toy_tokens(prompt_text(body))


def held(index: "KVIndex", url: str, body: dict[str, Any]) -> int:
    """Tokens of a body's prompt that an endpoint holds."""
    return index.matched(token_ids(body), [url])[0][0]
