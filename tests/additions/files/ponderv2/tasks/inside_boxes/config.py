"""Settings of the model that tells which points lie inside a box."""

from __future__ import annotations

from typing import Literal

from ponderv2.models.config import EncoderModelConfig


class InsideBoxesConfig(EncoderModelConfig):
    """An encoder and one number per point."""

    kind: Literal["inside_boxes"] = "inside_boxes"
    threshold: float = 0.5
    """Probability from which a point counts as inside."""

    def without_files(self) -> InsideBoxesConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self
