"""Settings of the lift of points and images together. Never imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ponderv2.config import StrictConfig
from ponderv2.lift.config import DensifyConfig
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig

ImageLift = Annotated[ProjectedSamplingConfig | FrustumPoolingConfig, Field(discriminator="kind")]


class FusedConfig(StrictConfig):
    """Both volumes are added, then one 3x3x3 convolution, norm and ReLU (UVTR, UniPAD)."""

    needs: ClassVar[Literal["points_and_images"]] = "points_and_images"

    kind: Literal["fused"] = "fused"
    points: DensifyConfig = DensifyConfig()
    images: ImageLift = ProjectedSamplingConfig()

    @property
    def supervises_depth(self) -> bool:
        """As of the branch of images."""
        return self.images.supervises_depth

    @property
    def needs_cube(self) -> bool:
        """As of the branch of points."""
        return self.points.needs_cube
