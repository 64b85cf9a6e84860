"""The program `ponder`: registers the commands and is the one place that reports errors."""

from __future__ import annotations

import os
import select
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ponder_cli.commands.detect import detect
from ponder_cli.commands.doctor import doctor
from ponder_cli.commands.eval import evaluate
from ponder_cli.commands.export import export
from ponder_cli.commands.features import features
from ponder_cli.commands.finetune import finetune
from ponder_cli.commands.inspect import inspect
from ponder_cli.commands.prepare import prepare_app
from ponder_cli.commands.presets import presets_app
from ponder_cli.commands.pretrain import pretrain
from ponder_cli.commands.reconstruct import reconstruct
from ponder_cli.commands.render import render
from ponder_cli.commands.text_embeddings import text_embeddings
from ponderv2.version import describe_version

USER_MISTAKE, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130
READER_LEFT = 1
"""The reader of standard output, `head` for instance, left: no message, as in Rich."""


class ReportingGroup(TyperGroup):
    """Runs a command and turns every error into lines on stderr and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of use: Typer puts commands with subcommands last."""
        return sorted(super().list_commands(ctx), key=lambda name: name != "prepare")

    def invoke(self, ctx: Any) -> Any:
        """2: the user can fix it. 1: an internal error. 130: stopped with Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(_report_interrupt(stop)) from None
        except Exception as problem:
            if _belongs_to_typer(problem):
                raise
            raise typer.Exit(_report(problem, debug=ctx.params.get("debug", False))) from None


app = typer.Typer(
    name="ponder",
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prepare_app)
for command in (pretrain, finetune):
    app.command()(command)
app.command("eval")(evaluate)
for command in (features, detect, render, reconstruct, inspect, export, text_embeddings, doctor):
    app.command()(command)
app.add_typer(presets_app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ponder {describe_version()}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
) -> None:
    """Pre-train 3D encoders by neural rendering, then segment, render and reconstruct.

    Start with: ponder prepare synthetic, ponder pretrain, ponder render, ponder reconstruct.
    """
    del version, debug


def main(arguments: list[str] | None = None) -> None:
    """Run the program and leave with its exit status."""
    from ponder_cli.console import make_streams_tolerant

    make_streams_tolerant()
    _let_waiting_threads_sleep()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--debug" in words:  # accepted anywhere
        words = ["--debug", *(word for word in words if word != "--debug")]
    app(args=words, prog_name="ponder")


def _let_waiting_threads_sleep() -> None:
    """By default OpenMP's threads spin while they wait for each other.

    On a machine with other work a spinning thread keeps the core that the one it waits for needs: a training
    step takes ten times as long and more. Must be set before torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _belongs_to_typer(problem: Exception) -> bool:
    """Wrong usage and requested exits, which Typer reports itself."""
    return isinstance(problem, typer.Exit | typer.Abort) or hasattr(problem, "format_message")


def _report_interrupt(stop: KeyboardInterrupt) -> int:
    from ponder_cli import console

    console.warn(str(stop) or "interrupted")
    return INTERRUPTED


def _report(problem: Exception, debug: bool) -> int:
    from ponder_cli import console
    from ponderv2.errors import Interrupted, PonderError, ResourceError, is_out_of_memory

    if isinstance(problem, Interrupted):
        console.stopped(problem)
        return problem.exit_status
    if isinstance(problem, BrokenPipeError) and _nobody_reads():
        return READER_LEFT
    text = "".join(traceback.format_exception(problem))
    if debug:
        console.err.print(text, markup=False, highlight=False)
    if _misses_a_library(problem):
        problem = ResourceError(f"a library is not installed: {problem}", fix="ponder doctor")
    if is_out_of_memory(problem) and not isinstance(problem, PonderError):
        reason = f": {str(problem).splitlines()[0]}" if str(problem) else ""
        problem = ResourceError(f"out of memory{reason}", fix="close other programs, or a smaller --set")
    if isinstance(problem, PonderError):
        console.error(problem)
        return USER_MISTAKE
    console.internal_error(problem, _write_log(text))
    return INTERNAL_ERROR


def _nobody_reads() -> bool:
    """Whether standard output was closed at its other end; the rest of its buffer is dropped."""
    try:
        sys.stdout.flush()
        if not _other_end_is_closed(sys.stdout.fileno()):
            return False
    except BrokenPipeError:
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _other_end_is_closed(file: int) -> bool:
    """Of a pipe; a failed write has left its buffer empty, so that flushing it succeeds."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _misses_a_library(problem: Exception) -> bool:
    """A dependency is missing; a missing module of this program is an internal error."""
    name = getattr(problem, "name", None) if isinstance(problem, ModuleNotFoundError) else None
    return bool(name) and not str(name).startswith("ponder")


def _write_log(text: str) -> Path:
    path = Path(tempfile.gettempdir()) / f"ponder-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    words = " ".join(sys.argv)
    try:
        path.write_text(
            f"ponder {describe_version()}\n{words}\n\n{text}", encoding="utf-8", errors="backslashreplace"
        )
    except OSError:
        return Path("not written: no space or no permission")
    return path
