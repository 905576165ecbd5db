"""How commands refuse bad input: one line on stderr and exit code 2."""

import difflib
import errno
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click


class Named(click.Group):
    """A group of commands that says which command was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        word = args[0]
        is_command = self.get_command(ctx, word) is not None
        if is_command or word.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(word, self.commands, n=1)
        if near:
            hint = f"; did you mean `{ctx.command_path} {near[0]}`?"
        elif "replay" in self.commands and Path(word).exists():
            hint = f"; to replay a file: `{ctx.command_path} replay {word}`"
        else:
            hint = ";"
        bad(f"no command {word!r}{hint} commands: {', '.join(self.list_commands(ctx))}")


class OneLineErrors(Named):
    """A group of commands in which bad input gives one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
        kwargs["standalone_mode"] = False
        try:
            if sys.stdout is None:  # it was closed before the start: nobody would see anything
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            code = super().main(*args, **kwargs)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"error: {_line(error)}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EBADF) or error.filename is not None:
                raise
            click.echo(f"error: standard output: {error.strerror}", err=True)
            # What is left in the buffer would fail again at exit, with a traceback.
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


def bad(reason: str) -> NoReturn:
    """Refuse the command line, in one line."""
    raise click.UsageError(" ".join(reason.split()))


def _line(error: click.ClickException) -> str:
    """The error in one line, with what to write instead."""
    ctx = getattr(error, "ctx", None)
    path = "routecore" if ctx is None else ctx.command_path
    if isinstance(error, click.NoSuchOption):
        return _no_option(error, ctx, path)
    if isinstance(error, click.MissingParameter) and ctx is not None:
        usage = " ".join(ctx.command.get_usage(ctx).split()).removeprefix("Usage: ")
        return f"{error.format_message().rstrip('.')}; usage: {usage}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        name = error.param.opts[0] if error.param.param_type_name == "option" else "argument"
        return f"{name}: {error.message}"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.format_message().rstrip('.')}; see `{path} --help`"
    return " ".join(error.format_message().split())


def _no_option(error: click.NoSuchOption, ctx: click.Context | None, path: str) -> str:
    name = error.option_name
    said = f"no option {name} of `{path}`"
    if ctx is None:
        return said
    if isinstance(ctx.command, click.Group):
        has = [
            f"`{path} {command} {name}`"
            for command, found in ctx.command.commands.items()
            if name in options_of(found)
        ]
        if has:
            return f"{said}: options stand behind their command, as in {' or '.join(has)}"
    near = difflib.get_close_matches(name, options_of(ctx.command), n=1)
    return f"{said}; did you mean {near[0]}?" if near else f"{said}; see `{path} --help`"


def options_of(command: click.Command) -> list[str]:
    """The options that a command takes, as they are written."""
    return [word for param in command.params for word in param.opts if word.startswith("-")]
