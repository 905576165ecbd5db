"""How commands refuse bad input: one line on stderr and exit code 2."""

import errno
import os
import sys
from typing import Any, NoReturn

import click


class OneLineErrors(click.Group):
    """A group of commands in which bad input gives one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"error: {error.format_message()}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            click.echo(f"error: standard output: {error.strerror}", err=True)
            # What is left in the buffer would fail again at exit, with a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


def bad(reason: str) -> NoReturn:
    """Refuse the command line, in one line."""
    raise click.UsageError(" ".join(reason.split()))
