"""Settings of the lift that averages over views."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ponderv2.config import StrictConfig

if TYPE_CHECKING:
    from ponderv2.lift.mean_of_views.lift import MeanOfViews


class MeanOfViewsConfig(StrictConfig):
    """Every cell gets the mean of what the views show at its centre."""

    needs: ClassVar[Literal["images"]] = "images"
    needs_cube: ClassVar[bool] = False

    kind: Literal["mean_of_views"] = "mean_of_views"

    def build(self) -> MeanOfViews:
        """The module from features, in a `VolumeFrame`, to a volume."""
        from ponderv2.lift.mean_of_views.lift import MeanOfViews

        return MeanOfViews(self)
