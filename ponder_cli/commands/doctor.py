"""`ponder doctor`: what is installed, what is in use, what is missing and how to get it."""

from __future__ import annotations

import typer

from ponder_cli.options import JsonOption


def doctor(json: JsonOption = None) -> None:
    """Examine this installation: versions, GPU, backends, and what each missing extra would bring."""
    from ponder_cli import console
    from ponder_cli.health import examine
    from ponderv2.version import describe_version

    console.note("importing the libraries in other processes; this takes some seconds")
    findings = examine()
    version = describe_version()
    console.heading(f"ponder {version}")
    rows = [(item.name, item.state, item.detail, item.fix or "") for item in findings]
    console.table(("part", "state", "detail", "what to type"), rows)
    console.write_json({"version": version, "findings": findings}, json)
    if any(item.required and item.state != "ok" for item in findings):
        raise typer.Exit(2)
