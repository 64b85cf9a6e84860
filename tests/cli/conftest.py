"""Run the command line inside the test process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from ponder_cli.app import app

Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    """run("presets", "show", ...) -> a result with exit_code, stdout and stderr."""

    def call(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="ponder")

    return call
