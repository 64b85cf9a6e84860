"""What a workflow says."""

from __future__ import annotations

from ponderv2.training.report import SilentReporter


class Heard(SilentReporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.warned: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)
