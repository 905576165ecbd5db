"""The command `routecore shadow-report`."""

import textwrap
from pathlib import Path

import click

from routecore.cli.errors import bad


@click.command("shadow-report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def shadow_report(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what would have differed, from the records of shadow mode."""
    import msgspec

    from routecore.integrations.shared.shadow import summarise

    try:
        summary = summarise(files)
    except (OSError, ValueError) as error:
        bad(f"{', '.join(map(str, files))}: {getattr(error, 'strerror', None) or error}")
    if as_json:
        click.echo(msgspec.json.encode(summary).decode())
        return
    click.echo(f"requests            {summary.requests} ({summary.skipped} lines skipped)")
    click.echo(f"strategy            {summary.strategy}")
    click.echo(f"agreement           {summary.agreement:.1%}")
    click.echo(f"{'':20}{'host':>10} {'ours':>10}")
    pairs = (
        ("predicted hit tokens", summary.hit_rate, "{:.1%}"),
        ("busiest endpoint", summary.busiest_share, "{:.1%}"),
        ("predicted latency", summary.latency_ms, "{:.1f} ms"),
    )
    for name, sides, form in pairs:
        host, ours = (
            "-" if sides[who] is None else form.format(sides[who]) for who in ("host", "ours")
        )
        click.echo(f"{name:20}{host:>10} {ours:>10}")
    if summary.took_ms is not None:
        click.echo(f"{'measured latency':20}{summary.took_ms:>7.1f} ms")
    click.echo("")
    click.echo(textwrap.fill(summary.verdict, 80))
