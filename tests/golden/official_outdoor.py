"""`PonderOutdoor-v2` under its official names -> the settings of our `nuscenes*-official` presets."""

from __future__ import annotations

import math
from typing import Any

from ponderv2.encoder.config import MaskConfig
from ponderv2.lift.config import DensifyConfig, RangeFrameConfig
from ponderv2.models.config import PretextConfig, TextTargetConfig
from ponderv2.renderer.config import RendererConfig, RenderLossConfig, VolumeLimitsConfig
from tests.golden.official_configs import encoder_config, projection_config
from tests.golden.official_renderer import loss_config, renderer_config

Official = dict[str, Any]


def outdoor_config(official: Official) -> PretextConfig:
    """With everything as published; of one data set, whose range is the same for all scenes."""
    mask = official.get("mask")
    return PretextConfig(
        encoder=encoder_config(official["backbone"]),
        mask=None if mask is None else MaskConfig(block_size=mask["size"], ratio=mask["ratio"]),
        frame=_range(official),
        lift=DensifyConfig(corners_are_centres=True),
        projection=projection_config(official["projection"]),
        renderer=_renderer(official["renderer"]),
        losses=_losses(official["renderer"]),
        semantic=_texts(official),
    )


def _range(official: Official) -> RangeFrameConfig:
    """Range and cells; each is a value, or a list of one value per data set."""
    box, cells, size = (_of_one(official[name]) for name in ("scene_bbox", "grid_shape", "grid_size"))
    frame = RangeFrameConfig(lower=tuple(box[:3]), upper=tuple(box[3:]), cells=tuple(cells), stretch=True)
    for axis in range(3):
        assert math.isclose((box[3 + axis] - box[axis]) / cells[axis], size[axis], rel_tol=1e-6), (
            f"{cells} cells of {size} do not fill {box}"
        )
    return frame


def _of_one(value: Any) -> Any:
    """Of the only data set."""
    if isinstance(value[0], list | tuple):
        assert len(value) == 1, f"a range for each of {len(value)} data sets"
        return value[0]
    return value


def _renderer(official: Official) -> RendererConfig:
    """As indoors, in the range of the frame: the published box is 0..1, which is where points are read."""
    made, collider, field = renderer_config(official), official["collider"], official["field"]
    assert collider["type"] == "AABBBoxCollider" and list(collider["bbox"]) == [0, 0, 0, 1, 1, 1], collider
    assert not field.get("norm_pts", False), "points of the range are normalised already"
    return made.model_copy(
        update={
            "limits": VolumeLimitsConfig(near=collider.get("near_plane", 0.0)),
            "sampler": made.sampler.model_copy(update={"normalise_points": True}),
            "field": made.field.model_copy(update={"gradient_in_volume_units": False}),
        }
    )


def _losses(official: Official) -> RenderLossConfig:
    """Class 0 has a text like any other, and rays end inside the range: none is a miss."""
    update = {"supervise_class_zero": True, "color_of_misses": False}
    return loss_config(official).model_copy(update=update)


def _texts(official: Official) -> TextTargetConfig | None:
    if not official.get("render_semantic"):
        return None
    rows = official.get("valid_index")
    chosen = None if not rows else tuple(_of_one(rows))
    n_classes = len(official["class_name"])
    return TextTargetConfig(
        n_classes=n_classes,
        valid_index=None if chosen == tuple(range(n_classes)) else chosen,
        point_head=False,
    )
