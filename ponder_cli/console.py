"""The one place that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ponderv2.errors import MismatchError, OutputError, PonderError
from ponderv2.io.files import write_bytes

WIDTH_OF_FILES = 160
"""Columns of a table that goes into a file or another program."""
ANOTHER_FILE = "--json another/file.json"
LIST_SHOWN = 6
"""Longer lists of names are shown by their ends; JSON has them whole."""
MISMATCHES_SHOWN = 8
"""Entries of a checkpoint that are named for each kind of mismatch."""

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def make_streams_tolerant() -> None:
    """Let paths with bytes that the terminal cannot show be printed rather than end the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """One line of result on stdout. `text` is shown as it is: no markup."""
    out.print(escape(text))


def heading(text: str) -> None:
    """One emphasised line of result on stdout."""
    out.print(f"[bold]{escape(text)}[/bold]")


def note(text: str) -> None:
    """One line about progress on stderr."""
    err.print(f"[dim]{escape(text)}[/dim]")


def warn(text: str) -> None:
    """One line on stderr that should not be missed."""
    err.print(f"[yellow]warning:[/yellow] {escape(text)}")


def next_command(*words: object) -> None:
    """The command that usually follows, on stderr, so that it can be copied: `ponder` and these words."""
    err.print(f"[green]Next:[/green] {escape(shlex.join(['ponder', *map(str, words)]))}")


def error(problem: PonderError) -> None:
    """The problem and, where known, what to type: two lines on stderr."""
    err.print(f"[red]error:[/red] {escape(problem.message)}")
    if problem.fix:
        err.print(f"[green]  try:[/green] {escape(problem.fix)}")
    if isinstance(problem, MismatchError):
        _mismatches([plain(row) for row in problem.rows])


def show_checkpoint(result: object) -> None:
    """What a checkpoint holds on stdout, with some of the entries that do not fit."""
    values = plain(result)
    rows = values.pop("differences")
    numbers({name: value for name, value in values.items() if value not in ("none", [], None)})
    if rows:
        _mismatches(rows, out)


def _mismatches(rows: Sequence[Mapping[str, str]], stream: Console = err) -> None:
    """The mismatched entries of a checkpoint: some of every kind, and how many there are."""
    counts = Counter(row["kind"] for row in rows)
    grid = Table(title="entries that do not fit", title_justify="left", header_style="bold")
    for name in ("entry", "trouble"):
        grid.add_column(name, overflow="fold")
    for kind, count in counts.items():
        chosen = [row for row in rows if row["kind"] == kind][:MISMATCHES_SHOWN]
        for row in chosen:
            grid.add_row(escape(row["entry"]), escape(row["trouble"]))
        if count > len(chosen):
            grid.add_row(f"... and {count - len(chosen)} more", kind)
    target = stream if stream.is_terminal else Console(file=stream.file, width=WIDTH_OF_FILES)
    target.print(grid)


def stopped(problem: PonderError) -> None:
    """A run that was interrupted and how to continue it: two lines on stderr."""
    err.print(f"[yellow]{escape(problem.message)}[/yellow]")
    if problem.fix:
        err.print(f"[green]to continue:[/green] {escape(problem.fix)}")


def internal_error(problem: BaseException, log: Path) -> None:
    """One line for an internal error, with the file that holds the traceback."""
    text = f"{type(problem).__name__}: {problem}".splitlines()[0]
    err.print(
        f"[red]internal error:[/red] {escape(text)} (traceback: {escape(str(log))}; shown with --debug)"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table of results on stdout. Numbers are right-aligned."""
    rows = [[_cell(value) for value in row] for row in rows]
    grid = Table(title=escape(title) if title else None, title_justify="left", header_style="bold")
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        grid.add_column(escape(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    target = out if out.is_terminal else Console(file=out.file, width=WIDTH_OF_FILES)
    target.print(grid)


def numbers(values: Mapping[str, object], title: str | None = None) -> None:
    """Named values, one per line, on stdout."""
    if title:
        heading(title)
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        say(f"  {name:<{width}}  {_cell(value)}")


def show_result(result: object) -> None:
    """A result on stdout: plain values one per line, then each list of records as a table."""
    values = plain(result)
    if not isinstance(values, dict):
        say(_cell(values))
        return
    numbers({name: value for name, value in _flat(values, "") if not _is_records(value)})
    for name, value in _flat(values, ""):
        if _is_records(value) and value:
            columns = list(value[0])
            table(
                [_words(column) for column in columns],
                [[row.get(key) for key in columns] for row in value],
                name,
            )


def setting(key: str, value: object, origin: str, meaning: str) -> None:
    """One setting of a preset: value, where it came from, what it means."""
    out.print(f"[bold]{escape(key)}[/bold] = {escape(json.dumps(value, ensure_ascii=False))}")
    out.print(f"    [dim]{escape(origin)}[/dim]" + (f"  {escape(meaning)}" if meaning else ""))


def check_json(path: Path | None) -> None:
    """Raises OutputError where `write_json` could not write: before the work, not after it."""
    if path is None or str(path) == "-":
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise _unwritable(path, os.strerror(errno.EISDIR))
    if not folder.is_dir():
        raise _unwritable(path, os.strerror(errno.ENOTDIR))
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise _unwritable(path, os.strerror(errno.EACCES))


def _unwritable(path: Path, reason: str | None) -> OutputError:
    return OutputError(f"cannot write {path}: {reason}", fix=ANOTHER_FILE)


def write_json(result: object, path: Path | None) -> None:
    """The result as JSON into `path`, or on stdout for `-`; nothing without a path.

    Raises:
        OutputError: the file cannot be written.
    """
    if path is None:
        return
    text = json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    if str(path) == "-":
        sys.stdout.write(text + "\n")
        return
    write_bytes(path, (text + "\n").encode(), fix=ANOTHER_FILE)


def plain(value: Any) -> Any:
    """Nested dicts, lists, text and numbers; what is not a finite number becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    to_list = getattr(value, "tolist", None)  # numpy and torch, without importing them
    return str(value) if to_list is None else plain(to_list())


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Nested names joined by dots; what is empty is left out."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            found.append((f"{prefix}{name}", value))
    return found


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    if isinstance(value, list) and len(value) > LIST_SHOWN and isinstance(value[0], str):
        return f"{_cell(value[0])}, ..., {_cell(value[-1])} ({len(value)} of them)"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.removeprefix("-").replace(".", "", 1).replace("e-", "", 1).isdigit()
