"""The command `routecore engines`."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def engines(as_json: bool) -> None:
    """List the engine profiles of replays, and the tokens that the KV cache of each holds."""
    from routecore.replay import PROFILES

    if as_json:
        click.echo(json.dumps(PROFILES))
        return
    for name, tokens in PROFILES.items():
        click.echo(f"{name:28} {tokens:>9,} tokens of KV cache")
