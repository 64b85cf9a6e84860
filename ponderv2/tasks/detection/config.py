"""Settings of detection: an encoder, what lies between it and the head, and the head. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ponderv2.heads.detection.kinds import DetectionHeadConfig
from ponderv2.lift.config import DensifyConfig, RangeFrameConfig
from ponderv2.lift.kinds import LiftConfig, ProjectionConfig
from ponderv2.models.config import EncoderModelConfig


class DetectionModelConfig(EncoderModelConfig):
    """Boxes from the features of points, or from a volume that features were lifted into.

    Lift and projection are those of pre-training: where their settings agree with those of the checkpoint,
    they start from its weights.
    """

    kind: Literal["detection"] = "detection"
    head: DetectionHeadConfig
    classes: tuple[str, ...] | None = None
    """Names of what is detected. None: those of the boxes of the data set."""
    frame: RangeFrameConfig | None = None
    """Range and cells of the volume, for heads that read one."""
    lift: LiftConfig = DensifyConfig()
    projection: ProjectionConfig | None = None
    """3D convolutions of the volume. None: the head reads what was lifted."""

    @model_validator(mode="after")
    def _parts_agree(self) -> DetectionModelConfig:
        if self.head.reads == "points":
            if self.encoder is not None and self.encoder.gives == "images":
                raise ValueError(
                    f"head '{self.head.kind}' reads features of points, the encoder gives images"
                )
            return self
        if self.frame is None:
            raise ValueError(f"head '{self.head.kind}' reads a volume: set frame to its range and cells")
        if self.encoder is not None and self.lift.needs != self.encoder.gives:
            raise ValueError(f"lift '{self.lift.kind}' needs features of {self.lift.needs}")
        return self

    def without_files(self) -> DetectionModelConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self
