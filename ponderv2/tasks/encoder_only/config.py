"""Settings of an encoder without renderer or head. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ponderv2.models.config import EncoderModelConfig


class EncoderOnlyConfig(EncoderModelConfig):
    """What a file of an encoder alone describes: enough for features, and for fine-tuning."""

    kind: Literal["encoder"] = "encoder"

    @model_validator(mode="after")
    def _encoder_is_known(self) -> EncoderOnlyConfig:
        if self.encoder is None:
            raise ValueError("encoder: nothing describes it")
        return self

    def without_files(self) -> EncoderOnlyConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self
