"""The command `routecore strategies`."""

import inspect
import json
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")
def strategies(as_json: bool) -> None:
    """List the strategies: key, class, what it needs, parameters with defaults and units."""
    from routecore.routers import ROUTERS, UNITS, prefill_decode

    rows: list[dict[str, Any]] = []
    # The pair is no entry of ROUTERS: it needs a host that asks for both halves of a request.
    pair = prefill_decode.PrefillDecodeRouter
    listed: dict[str, Any] = {**ROUTERS, pair.strategy: pair}
    units = UNITS | prefill_decode.UNITS
    for key, cls in listed.items():
        given = list(inspect.signature(cls.__init__).parameters.values())[1:]
        parameters = {p.name: {"default": p.default, "unit": units[p.name]} for p in given}
        about = {"key": key, "class": cls.__name__, "needs": cls.needs}
        rows.append({**about, "parameters": parameters})
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['key']:18} {row['class']:26} needs {row['needs']}")
        for name, p in row["parameters"].items():
            click.echo(f"    {name + '=' + repr(p['default']):30} {p['unit']}")
