"""The command `routecore picker`: an endpoint picker for Envoy and the Gateway API."""

import json
import logging
import os
from typing import Any

import click

from routecore.cli.errors import bad
from routecore.errors import RouteError


@click.command()
@click.option(
    "--endpoints",
    metavar="SOURCE",
    help="IP:PORT,…; a .yaml or .json file; dns:HOST:PORT; pool:[NAMESPACE/]NAME; "
    "service:[NAMESPACE/]NAME[:PORT]; pods:[NAMESPACE/]LABEL=VALUE:PORT.",
)
@click.option("--strategy", help="A word of `routecore strategies`.  [default: prefix_cache]")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Of the strategy.")
@click.option("--listen", metavar="HOST:PORT", help="Of the gRPC server.  [default: 0.0.0.0:9002]")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Of /metrics and /held; 0: none.  [default: 9090]",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that share the port.")
@click.option("--fallbacks", type=click.IntRange(0), help="Named beside the choice.  [default: 2]")
@click.option(
    "--usage", is_flag=True, default=None, help="Read usage and first tokens from response bodies."
)
@click.option(
    "--hold", is_flag=True, default=None, help="Requests wait until there is room for them."
)
@click.option(
    "--shadow", is_flag=True, help="The gateway chooses; record what we would have chosen."
)
@click.option("--config", type=click.Path(dir_okay=False), help="TOML or YAML, for all settings.")
@click.option(
    "--print-envoy",
    "envoy_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Print the configuration of an Envoy that listens there and asks this picker; then end.",
)
@click.option("--buffered", is_flag=True, help="Of that Envoy: whole bodies in one message.")
@click.option("--quiet", is_flag=True, help="Log warnings only.")
def picker(
    config: str | None,
    envoy_port: int | None,
    buffered: bool,
    quiet: bool,
    shadow: bool,
    params: tuple[str, ...],
    **given: Any,
) -> None:
    """Choose the endpoint of each request for Envoy and gateways of the Gateway API (ext_proc).

    Every setting may also be a variable, ROUTECORE_STRATEGY and so on, or a key of the file that
    --config or ROUTECORE_CONFIG names; the command line goes before variables, these before the
    file. Ends gently on SIGTERM.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if shadow:
        chosen["mode"] = "shadow"
    environ = dict(os.environ)
    if config is not None:
        environ["ROUTECORE_CONFIG"] = config
    try:
        from routecore.integrations.envoy.settings import load
        from routecore.integrations.shared.settings import parameters

        if params:
            named: dict[str, Any] = {}
            for text in params:
                named |= parameters(text, "--param")
            chosen["params"] = named
        settings = load(chosen, environ)
        if buffered and envoy_port is None:
            raise RouteError("--buffered: Envoy's, and so only with --print-envoy")
        if envoy_port is not None:
            from routecore.integrations.envoy.bootstrap import bootstrap

            made = bootstrap(settings, port=envoy_port, buffered=buffered)
            click.echo(json.dumps(made, indent=1))
            return
        level = logging.WARNING if quiet else logging.INFO
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
        from routecore.integrations.envoy import workers

        if settings.workers > 1:
            workers.Workers(settings, level).run()
        else:
            workers.serve(settings)
    except ModuleNotFoundError as error:
        bad(f"the picker needs {error.name}: pip install 'routecore[envoy]'")
    except (RouteError, ImportError) as error:
        bad(str(error))
