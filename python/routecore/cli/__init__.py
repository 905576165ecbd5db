"""The `routecore` command: one file per subcommand."""

import click

from routecore import _core
from routecore.cli.demo import demo
from routecore.cli.engines import engines
from routecore.cli.errors import OneLineErrors
from routecore.cli.kv_events import kv_events
from routecore.cli.picker import picker
from routecore.cli.replay import replay
from routecore.cli.shadow_report import shadow_report
from routecore.cli.strategies import strategies


@click.group(
    "routecore",
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_core.VERSION, prog_name="routecore", message="%(prog)s %(version)s")
def main() -> None:
    """Routing strategies for LLM routers."""


for _command in (demo, replay, strategies, engines, shadow_report, kv_events, picker):
    main.add_command(_command)
