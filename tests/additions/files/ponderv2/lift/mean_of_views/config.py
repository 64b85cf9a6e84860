"""Settings of the lift that averages over views."""

from __future__ import annotations

from typing import ClassVar, Literal

from ponderv2.config import StrictConfig


class MeanOfViewsConfig(StrictConfig):
    """Every cell gets the mean of what the views show at its centre."""

    needs: ClassVar[Literal["images"]] = "images"
    needs_cube: ClassVar[bool] = False
    supervises_depth: ClassVar[bool] = False

    kind: Literal["mean_of_views"] = "mean_of_views"
