"""The commands `routecore kv-events …`."""

import json
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from routecore.cli.errors import Named, bad
from routecore.cli.groups import Strict
from routecore.cli.numbers import Decimal, Whole

if TYPE_CHECKING:
    from routecore.kv_events import KVEventSubscriber


@click.group("kv-events", cls=Named)
def kv_events() -> None:
    """KV-cache events of engines."""


@kv_events.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--replay", "replays", multiple=True, help="Replay address, per ADDRESS.")
@click.option("--metrics", "engines", multiple=True, help="Engine's HTTP address, per ADDRESS.")
@click.option("--ranks", type=Whole(1, 1024), default=1, show_default=True)
@click.option("--topic", default="", help="Subscription; all by default.")
@click.option("--every", type=Decimal(0.05, 3600), default=1.0, show_default=True)
@click.option("--seconds", type=Decimal(0.05), help="End by itself after so long.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array per interval.")
def tail(
    addresses: tuple[str, ...],
    replays: tuple[str, ...],
    engines: tuple[str, ...],
    ranks: int,
    topic: str,
    every: float,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Show live event streams: rates, losses, held blocks, and hits by the engines' metrics.

    ADDRESS: where an engine publishes, such as tcp://engine-1:5557.
    """
    from routecore import RouteError

    for name, given in (("--replay", replays), ("--metrics", engines)):
        if given and len(given) != len(addresses):
            bad(f"{name}: expected one per address ({len(addresses)}), got {len(given)}")
    try:
        from rich.console import Console
        from rich.live import Live

        from routecore.kv_events import KVEventSubscriber, KVSource
        from routecore.kv_events.tail import Rates, table
    except ModuleNotFoundError as error:
        bad(f"kv-events tail needs {error.name}: pip install 'routecore[demo]'")
    except ImportError as error:
        bad(str(error))
    urls = engines or addresses
    try:
        subscriber = KVEventSubscriber(
            KVSource(url, address, replays[at] if replays else None, ranks, topic)
            for at, (url, address) in enumerate(zip(urls, addresses, strict=True))
        )
    except RouteError as error:
        bad(str(error))
    rates = Rates(subscriber, {url: url for url in engines})
    end = None if seconds is None else time.monotonic() + seconds
    try:
        with Live(console=Console(), auto_refresh=False) if not as_json else nullcontext() as live:
            while end is None or time.monotonic() < end:
                time.sleep(every)
                rows = rates.rows()
                if live is None:
                    click.echo(json.dumps(rows))
                else:
                    live.update(table(rows), refresh=True)
    except KeyboardInterrupt:
        pass
    finally:
        silent = _never_connected(subscriber)
        subscriber.close()
    if seconds is not None and silent:
        bad(
            f"{', '.join(silent)}: not connected within {seconds:g} s; is it the endpoint of the "
            "engine's --kv-events-config, and can it be reached from here?"
        )


def _never_connected(subscriber: "KVEventSubscriber") -> list[str]:
    """Addresses that nobody has answered at."""
    publishers = [status for each in subscriber.status().values() for status in each]
    return [status["address"] for status in publishers if not status["connected"]]


@kv_events.command(cls=Strict, extra="unexpected {}: one engine at a time")
@click.argument("url")
@click.option("--events", help="Where it publishes, such as tcp://engine-1:5557.")
@click.option("--replay", help="Its replay address.")
@click.option("--ranks", type=Whole(1, 1024), default=1, show_default=True)
@click.option("--tokenizer", help="Folder of the model, to compare token ids.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent along.")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
def check(
    url: str,
    events: str | None,
    replay: str | None,
    ranks: int,
    tokenizer: str | None,
    headers: tuple[str, ...],
    insecure: bool,
    as_json: bool,
) -> None:
    """Compare what a router would believe of an engine with what the engine says.

    URL: the engine's HTTP address. Token ids are compared with its /tokenize (--tokenizer), what
    its events promise with the `usage` of a few short requests sent to it (--events). Ends with 1
    where anything differs.
    """
    from routecore import RouteError

    try:
        import httpx

        from routecore.kv_events import KVSource, PromptTokens
        from routecore.kv_events.check import check as findings

        source = None if events is None else KVSource(url, events, replay, ranks)
        tokens = None if tokenizer is None else PromptTokens.from_model(tokenizer)
    except (RouteError, ImportError) as error:
        bad(str(error))
    for given in headers:
        if ":" not in given:
            bad(f"--header: expected NAME:VALUE, got {given!r}")
    pairs = [given.partition(":") for given in headers]
    sent = {name.strip(): value.strip() for name, _, value in pairs}
    differs = False
    try:
        for found in findings(url, source, tokens, headers=sent, verify=not insecure):
            differs |= found.result == "differs"
            if as_json:
                click.echo(json.dumps(found._asdict()))
            else:
                click.echo(f"{found.result:8} {found.what}: {found.detail}")
    except (httpx.HTTPError, RouteError, ImportError, KeyError, ValueError) as error:
        bad(f"{url}: {type(error).__name__}: {error}")
    if differs:
        raise SystemExit(1)
