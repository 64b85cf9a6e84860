"""Settings of an encoder without renderer or head."""

from __future__ import annotations

from typing import Literal

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import EncoderConfig


class EncoderOnlyConfig(StrictConfig):
    """What a file of an encoder alone describes: enough for features, and for fine-tuning."""

    kind: Literal["encoder"] = "encoder"
    encoder: EncoderConfig
    freeze_encoder: bool = False
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset."""
    conditions: tuple[str, ...] = ()
    """Datasets in the order of the rows of `embedding_table`; empty: that of the encoder."""
