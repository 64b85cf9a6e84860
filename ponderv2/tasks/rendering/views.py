"""Held-out views: rendered by a pre-trained model and compared with the recorded images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.crops import Region
from ponderv2.data.lidar_rays import LidarPixels, places, sparse_depth
from ponderv2.data.pretrain_dataset import PretrainDataset, ValidationScene
from ponderv2.data.scan_config import LidarRaysConfig
from ponderv2.errors import SceneError
from ponderv2.evaluation.images import depth_errors, mean_metrics, psnr, ssim
from ponderv2.geometry.cameras import unproject
from ponderv2.geometry.transforms import transform_points
from ponderv2.models.pretext import PretextModel
from ponderv2.reconstruction.images import RgbImage, color_bytes, write_rgb
from ponderv2.reconstruction.scene_field import ModelField, RenderedImages, render_camera, render_pixels
from ponderv2.scenes.scene import Frame
from ponderv2.tasks.images import color_map
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult
from ponderv2.training.report import Reporter

MOST_HITS = 1024
"""Points of a LiDAR that a view is compared with."""


@dataclass(frozen=True)
class HitPair:
    """Points of a LiDAR in a view, as measured and as rendered exactly there."""

    color: Float[Tensor, "hit 3"] | None
    """Of the nearest pixel, 0..1; None where no colour is trained on."""
    depth: Float[Tensor, " hit"]
    """Metres along the optical axis."""
    rendered_color: Float[Tensor, "hit 3"]
    rendered_depth: Float[Tensor, " hit"]

    def metrics(self) -> dict[str, float]:
        """As those of a view; SSIM is nan."""
        errors = depth_errors(self.rendered_depth[:, None], self.depth[:, None])
        color = math.nan
        if self.color is not None and len(self.color):
            color = psnr(self.rendered_color[:, None], self.color[:, None])
        return {
            "psnr": color,
            "ssim": math.nan,
            "depth_l1": errors.mean_absolute,
            "depth_median": errors.median,
        }


@dataclass(frozen=True)
class ViewPair:
    """A view as it was recorded and as it is rendered, at the pixels that were rendered."""

    name: str
    color: Float[Tensor, "row column 3"] | None
    """0..1; None where the view has depth alone."""
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis; 0 = no measurement."""
    rendered_color: Float[Tensor, "row column 3"]
    rendered_depth: Float[Tensor, "row column"]
    rendered_normal: Float[Tensor, "row column 3"]
    """Scene frame; as long as the pixel is opaque."""
    counted: Bool[Tensor, "row column"]
    """Pixels that show the part of space which the model was given, and that no mask hides."""
    hits: HitPair | None = None
    """Points of a LiDAR, which are compared in place of the pixels: few of these are ever trained on."""

    def metrics(self) -> dict[str, float]:
        """PSNR (decibel), SSIM, and depth errors in metres where the depth is measured.

        PSNR and SSIM are nan for a view without colour, SSIM also where not all pixels count.
        """
        if self.hits is not None:
            return self.hits.metrics()
        errors = depth_errors(self.rendered_depth, self.depth, self.counted)
        whole = bool(self.counted.all())
        color = self.color
        return {
            "psnr": math.nan if color is None else psnr(self.rendered_color, color, self.counted),
            "ssim": ssim(self.rendered_color, color) if whole and color is not None else math.nan,
            "depth_l1": errors.mean_absolute,
            "depth_median": errors.median,
        }


@torch.no_grad()
def compare_views(
    model: PretextModel, scene: ValidationScene, largest_width: int, chunk: int = 8192
) -> Iterable[ViewPair]:
    """The scene's validation frames and what the model renders for them.

    Every n-th pixel and row is rendered, so that no image is wider than `largest_width`.
    """
    encoded = model.build_volume(scene.batch.to(next(model.parameters()).device))
    field = ModelField(model.renderer, encoded.volume, encoded.frame.world_to_volume[0].cpu())
    for number, frame in enumerate(scene.frames):
        stride = math.ceil(frame.camera.width / largest_width)
        rendered = render_camera(field, frame.camera, chunk, stride)
        if scene.hits is None or scene.lidar is None:
            rows, columns = _grid(frame, stride)
            depth, hits = frame.read_depth()[rows][:, columns], None
        else:
            depth = sparse_depth(scene.hits[number], frame.camera, stride)
            hits = _hit_pair(field, frame, scene.hits[number].evenly(MOST_HITS), scene.lidar, chunk)
        yield replace(_compare(rendered, frame, depth, scene.region, stride), hits=hits)


def _hit_pair(
    field: ModelField, frame: Frame, hits: LidarPixels, lidar: LidarRaysConfig, chunk: int
) -> HitPair:
    color = None
    if lidar.color and frame.has_color:
        column, row = places(hits.pixel, frame.camera, lidar.round_down).unbind(1)
        color = frame.read_color()[row, column].float() / 255.0
    rendered_color, rendered_depth = render_pixels(field, frame.camera, hits.pixel, chunk)
    return HitPair(color, hits.depth, rendered_color, rendered_depth)


def _grid(frame: Frame, stride: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(stride // 2, frame.camera.height, stride)
    return rows, torch.arange(stride // 2, frame.camera.width, stride)


def _compare(
    rendered: RenderedImages,
    frame: Frame,
    depth: Float[Tensor, "row column"],
    region: Region | None,
    stride: int,
) -> ViewPair:
    rows, columns = _grid(frame, stride)
    color = frame.read_color()[rows][:, columns].float() / 255.0 if frame.has_color else None
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixel = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
    return ViewPair(
        name=frame.id,
        color=color,
        depth=depth,
        rendered_color=rendered.color,
        rendered_depth=rendered.depth,
        rendered_normal=rendered.normal * rendered.opacity[..., None],
        counted=_counted(pixel, depth, frame, region) & frame.read_visible()[rows][:, columns],
    )


def _counted(
    pixel: Float[Tensor, "ray 2"], depth: Float[Tensor, "row column"], frame: Frame, region: Region | None
) -> Bool[Tensor, "row column"]:
    """All pixels of a whole scene; of a part those whose measured point lies in it."""
    if region is None:
        return torch.ones_like(depth, dtype=torch.bool)
    intrinsics = frame.camera.intrinsics.expand(len(pixel), 3, 3)
    in_camera = unproject(pixel, depth.reshape(-1), intrinsics)
    points = transform_points(torch.linalg.inv(frame.camera.world_to_camera.double()), in_camera.double())
    return (region.contains(points.float()) & (depth.reshape(-1) > 0)).reshape(depth.shape)


def evaluate_views(request: EvaluationRequest, model: PretextModel, report: Reporter) -> EvaluationResult:
    """Renders the held-out views of every scene beside the recorded images.

    Raises SceneError where a file of predicted classes is asked for: there are none.
    """
    for option, path in (("--submission", request.submission), ("--export", request.export)):
        if path is not None:
            raise SceneError(
                f"{request.stored.path} is a pre-trained encoder and predicts no classes for {option}",
                fix=f"ponder finetune --from {request.stored.path}, then ponder eval",
            )
    if request.tta != "none":
        report.warn("views are rendered once: --tta is for semantic segmentation")
    data = PretrainDataset(request.store, request.split, request.settings(PretrainDataConfig))
    rows: list[dict[str, Any]] = []
    metrics: list[dict[str, float]] = []
    images: list[Path] = []
    for index in report.track(range(len(data)), f"rendering {request.split}", len(data)):
        scene = data.validation(index)
        name = scene.batch.names[0]
        for pair in compare_views(model, scene, request.width):
            metrics.append(pair.metrics())
            rows.append({"scene": name, "frame": pair.name, **metrics[-1]})
            target = request.folder / f"{name.replace('/', '_')}-{pair.name}.png"
            images.append(write_rgb(target, preview(pair)))
    return EvaluationResult(
        kind="pretext",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics=mean_metrics(metrics),
        views=rows,
        images=images,
    )


def preview(pair: ViewPair) -> RgbImage:
    """Above the image with its depth, below the rendered view with depth and normals.

    Of a view without colour both colours are left white: what is rendered is compared with nothing.
    """
    known = pair.depth > 0
    nearest, farthest = (
        (float(pair.depth[known].min()), float(pair.depth[known].max())) if known.any() else (0.0, 5.0)
    )
    real = torch.where(known, pair.depth, torch.nan)
    blank = np.full((*pair.depth.shape, 3), 255, dtype=np.uint8)
    above = [
        blank if pair.color is None else color_bytes(pair.color),
        color_map(real, nearest, farthest),
        blank,
    ]
    below = [
        blank if pair.color is None else color_bytes(pair.rendered_color),
        color_map(pair.rendered_depth, nearest, farthest),
        color_bytes(pair.rendered_normal * 0.5 + 0.5),
    ]
    return np.concatenate([np.concatenate(above, axis=1), np.concatenate(below, axis=1)], axis=0)
