"""What all verbs share: the flow they are given, the common options, and how errors are told."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from onefold.cli.exits import exit_of
from onefold.errors import BuildError, OnefoldError, Unexpected
from onefold.finding import find_flow
from onefold.flow import Flow
from onefold.plan import Plan
from onefold.settings import load_env_file

__all__ = [
    "Chosen", "Verb", "confirm", "errors_to", "is_verbose", "json_option", "print_json", "report", "results_to",
    "takes_flow",
]  # fmt: skip

INTERRUPTED = 130
"""As shells give it for Ctrl-C."""

_VERBOSE = "onefold.verbose"
_RESULTS = "onefold.results"


@dataclass(frozen=True)
class Chosen:
    """The flow of a command line. folder: its state. as_json: for programs."""

    flow: Flow
    plan: Plan
    file: Path
    target: str
    folder: Path
    as_json: bool


def results_to() -> Console:
    """Standard output: results."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def errors_to() -> Console:
    """Standard error: progress, logs and errors."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    context = click.get_current_context(silent=True)
    out = None if context is None else context.meta.get(_RESULTS)
    click.echo(json.dumps(value, default=str, ensure_ascii=False), file=out)


class Verb(click.Command):
    """A command whose errors are told readably and become exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Errors go to standard error, without a traceback unless --verbose."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that knows no ✓ shows a ? instead
        try:
            with _results_alone(ctx) if ctx.params.get("as_json") else contextlib.nullcontext():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, programs get an object and people get no traceback
            told = _told(error)
            report(told, as_json=bool(ctx.params.get("as_json")), with_traceback=is_verbose())
            ctx.exit(exit_of(told))


@contextlib.contextmanager
def _results_alone(ctx: click.Context) -> Iterator[None]:
    """Meanwhile standard output is for `print_json`; what the flow itself prints goes to standard error."""
    ctx.meta[_RESULTS] = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _told(error: Exception) -> OnefoldError:
    """The error itself, or what stands for one of which nobody could say more."""
    if isinstance(error, OnefoldError):
        return error
    told: OnefoldError = Unexpected(found=f"{type(error).__name__}: {error}")
    if isinstance(error, OSError):
        told = OnefoldError(
            f"{error.filename or 'A file'}: {error.strerror or error}.",
            next_step="Check that it exists, is of the right kind, and that this user may read and write there.",
        )
    told.__cause__ = error
    return told


def report(error: OnefoldError, *, as_json: bool, with_traceback: bool = False) -> None:
    """Tell an error on standard error."""
    if as_json:
        click.echo(json.dumps(error.as_json(), ensure_ascii=False), err=True)
        return
    if with_traceback:
        click.echo("".join(traceback.format_exception(error)), err=True)
    first, *rest = str(error).split("\n")
    text = Text.assemble(("error: ", "bold red"), (first, "bold"))
    for line in rest:
        text.append("\n")
        label, colon, value = line.partition(": ")
        is_label = bool(colon) and label.startswith("  ") and label.strip().isalpha()
        text.append_text(Text.assemble((label + colon, "cyan"), value) if is_label else Text(line))
    errors_to().print(text)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, which the verb's function gets, and --verbose, which `is_verbose` tells."""
    verbose = click.option(
        "--verbose", is_flag=True, expose_value=False, callback=_remember, help="Log more; show tracebacks of errors."
    )
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(verbose(command))


def is_verbose() -> bool:
    """Whether --verbose was given."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_VERBOSE] = value


def takes_flow(command: Callable[..., Any]) -> Callable[..., Any]:
    """FLOW, --state, --env-file, --json and --verbose; the verb's function gets a Chosen first."""

    @functools.wraps(command)
    def with_flow(target: str, state: str | None, env_file: str | None, *, as_json: bool, **rest: Any) -> Any:
        if env_file is not None:
            load_env_file(env_file)
        found = find_flow(target)
        folder = found.flow.state_folder(state)
        return command(
            Chosen(found.flow, _plan_of(found.flow, found.file), found.file, target, folder, as_json), **rest
        )

    argument = click.argument("target", metavar="FLOW")
    state = click.option(
        "--state", metavar="FOLDER", help="Where state is kept; else ONEFOLD_STATE, else .onefold beside the module."
    )
    env_file = click.option("--env-file", metavar="FILE", help="KEY=VALUE lines for ${NAME} in the flow.")
    wrapped: Callable[..., Any] = with_flow
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [json_option, env_file, state, argument]
    for option in options:
        wrapped = option(wrapped)
    return wrapped


def _plan_of(flow: Flow, file: Path) -> Plan:
    try:
        return flow.plan
    except BuildError as error:
        error.where.setdefault("file", file)
        raise


def confirm(question: str, *, is_sure: bool) -> None:
    """Ask on a terminal; elsewhere --yes must have been given. Raises click.Abort, click.UsageError."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This needs --yes where nobody can be asked.")
    click.confirm(question, abort=True, err=True)
