"""`ponder render`: a checkpoint and a scene -> images, compared with recorded frames where there are some."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.data.lidar_rays import LidarPixels, seen_points, sparse_depth
from ponderv2.data.scan_config import LidarRaysConfig
from ponderv2.evaluation.images import (
    depth_errors,
    mean_metrics,
    normal_error,
    normals_from_depth,
    psnr,
    ssim,
)
from ponderv2.geometry.cameras import Camera
from ponderv2.io.files import write_bytes
from ponderv2.reconstruction.birds_eye import heights_of_field, heights_of_points
from ponderv2.reconstruction.camera_files import CameraPath, Viewpoint, path_contents
from ponderv2.reconstruction.camera_paths import camera_path
from ponderv2.reconstruction.images import (
    RgbImage,
    check_video,
    class_bytes,
    color_bytes,
    normal_bytes,
    write_depth,
    write_rgb,
    write_video,
)
from ponderv2.reconstruction.scene_field import RenderedImages, SceneField, render_camera
from ponderv2.scenes.scene import Scene
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.tasks.images import color_map
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import RenderConfig
from ponderv2.workflows.scene_fields import as_trained, fit_scene, open_field, save_refined, training_frames
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes

FRAMES_PER_SECOND = 15
"""Frame rate of videos where the camera file gives none."""


@dataclass(frozen=True)
class RenderResult:
    """Where the images are and how well they match the recorded frames."""

    folder: Path
    n_images: int
    """Of every kind: one per camera."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Means over frames that were held out and over those that were not: psnr (decibel), ssim, depth_l1,
    depth_rmse and depth_median (metres), normal_error (degrees)."""
    views: list[dict[str, object]] = field(default_factory=list)
    """The same per frame."""
    video: Path | None = None
    refined: Path | None = None
    """The refined scene, which `ponder render` and `ponder reconstruct` take as a checkpoint."""
    refine_steps: int = 0
    refine_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class RecordedView:
    """A recorded frame at the size of the rendered image."""

    color: Float[Tensor, "row column 3"] | None
    """0..1; None where the view has depth only."""
    depth: Float[Tensor, "row column"]
    """Metres; 0 = no measurement. Of a scene without depth images that of the nearest point in each pixel."""
    visible: Bool[Tensor, "row column"]
    """False where a mask hides the pixel."""
    is_sparse: bool = False
    """Whether the depth is that of points."""


def run(
    config: RenderConfig,
    checkpoint: Path,
    *,
    scene: str,
    out: Path = Path("frames"),
    scenes: Path | None = None,
    split: str | None = None,
    report: Reporter | None = None,
) -> RenderResult:
    """Renders the views of a path into `out`: color, depth, depth_color, normal, semantic, side_by_side.

    `scenes` is the folder of prepared scenes. With refinement `out/refined.pth` is written too.

    Raises:
        SceneError: no such scene, or no cameras.
        CheckpointError: nothing that renders.
        OutputError: the images cannot be written.
        ResourceError: out of memory even with a few rays, or mp4 cannot be written.
    """
    report = report or SilentReporter()
    started = time.perf_counter()
    check_video(config.video)
    opened = open_checkpoint(checkpoint)
    store = open_scenes(SceneChoice.of(scenes, config), opened, report)
    scene = store.full_name(scene, split)
    read = as_trained(store.read(scene, split), store.root, opened)
    path = camera_path(read, config.cameras)
    for note in path.notes:
        report.note(note)
    views = path.views
    if config.width is not None:
        views = tuple(view.resized(config.width) for view in views)
    if read.only_depth and "color" in config.images:
        config = _without_color(config, report)
    field = open_field(opened, read, config.device, store.info.name, report)
    fitted = None
    if config.refine.steps > 0:
        fitted = fit_scene(read, config.refine, field, report)
        save_refined(out / "refined.pth", fitted, scene, store.root)
        field = fitted.field
    writer = ImageWriter(config, out, field, read, _depth_range(config, read), store.info.class_colors)
    writer.write_birds_eye()
    rows = [row for view in report.track(views, "render", len(views)) if (row := writer.write(view))]
    write_bytes(out / "cameras.json", json.dumps(path_contents(views), indent=1).encode())
    return RenderResult(
        folder=out,
        n_images=len(views),
        metrics=_means(rows),
        views=rows,
        video=_video(config, out, path),
        refined=None if fitted is None else out / "refined.pth",
        refine_steps=0 if fitted is None else fitted.steps,
        refine_seconds=0.0 if fitted is None else fitted.seconds,
        seconds=time.perf_counter() - started,
    )


def _without_color(config: RenderConfig, report: Reporter) -> RenderConfig:
    """Colours of a scene without colour images were never supervised: they are not rendered.

    Where nothing but colour is asked for, it is rendered with a warning.
    """
    others = tuple(kind for kind in config.images if kind != "color")
    if not others:
        report.warn("no view of the scene has a colour image: the rendered colours were not supervised")
        return config
    report.note("no view of the scene has a colour image: no colours are rendered")
    return config.model_copy(update={"images": others})


@dataclass(frozen=True)
class ImageWriter:
    """Renders viewpoints and writes their images."""

    config: RenderConfig
    out: Path
    field: SceneField
    scene: Scene
    depth_range: tuple[float, float]
    """Metres."""
    class_colors: tuple[tuple[int, int, int], ...]

    def write(self, view: Viewpoint) -> dict[str, object] | None:
        """Writes the images of a viewpoint; its metrics where there is a recorded frame."""
        frame_id = None if view.frame is None else view.frame.id
        rendered = render_camera(self.field, view.camera, self.config.chunk, frame_id=frame_id)
        rendered = rendered.without_background()
        images = self._images(rendered)
        for kind, image in images.items():
            write_rgb(self.out / kind / f"{view.name}.png", image)
        if "depth" in self.config.images:
            write_depth(self.out / "depth" / f"{view.name}.png", rendered.depth)
        if view.frame is None:
            return None
        real = recorded_view(view, self.scene)
        if self.config.side_by_side:
            beside = np.concatenate([self._recorded(real), *images.values()], axis=1)
            write_rgb(self.out / "side_by_side" / f"{view.name}.png", beside)
        return {"frame": view.name, "held_out": view.frame.held_out, **compare(rendered, real, view)}

    def _recorded(self, real: RecordedView) -> RgbImage:
        """The colour image of a view or, where there is none, its depth; with the points of a scan both."""
        if real.color is not None and not real.is_sparse:
            return color_bytes(real.color)
        shown = _enlarged(real.depth) if real.is_sparse else real.depth
        depth = color_map(torch.where(shown > 0, shown, torch.nan), *self.depth_range)
        return depth if real.color is None else np.concatenate([color_bytes(real.color), depth], axis=1)

    def write_birds_eye(self) -> None:
        """`birds_eye.png`: heights of the points on the left, of the rendered surface on the right."""
        cell = self.config.birds_eye
        if cell is None:
            return
        points = heights_of_points(self.scene.cloud.coord, self.field, cell)
        surface = heights_of_field(self.field, cell, self.config.chunk)
        known = points[torch.isfinite(points)].sort().values
        low, high = (float(known[int(q * (len(known) - 1))]) for q in (0.02, 0.98)) if len(known) else (0, 1)
        images = [color_map(one, low, high) for one in (points, surface)]
        write_rgb(self.out / "birds_eye.png", np.concatenate(images, axis=1))

    def _images(self, rendered: RenderedImages) -> dict[str, RgbImage]:
        images: dict[str, RgbImage] = {}
        for kind in self.config.images:
            match kind:
                case "color":
                    images["color"] = color_bytes(rendered.color)
                case "depth":
                    depth = torch.where(rendered.depth > 0, rendered.depth, torch.nan)
                    images["depth_color"] = color_map(depth, *self.depth_range)
                case "normal":
                    images["normal"] = normal_bytes(rendered.normal)
                case "semantic":
                    if rendered.semantic is not None:
                        images["semantic"] = class_bytes(rendered.semantic, self.class_colors)
        return images


DOT = 2
"""Pixels around a point of a scan that show its depth."""


def _enlarged(depth: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Points of a sparse depth image as squares, the nearest in front."""
    near = torch.where(depth > 0, 1.0 / depth, 0.0)
    largest = torch.nn.functional.max_pool2d(near[None, None], 2 * DOT + 1, 1, DOT)[0, 0]
    return torch.where(largest > 0, 1.0 / largest, 0.0)


def _seen(scene: Scene, camera: Camera) -> LidarPixels:
    """The points of a scene that a camera sees, without those of the vehicle that carries the LiDAR."""
    config = LidarRaysConfig() if scene.sweeps else LidarRaysConfig(closest=0.0)
    return seen_points(scene, camera, config)


def recorded_view(view: Viewpoint, scene: Scene) -> RecordedView:
    """The frame of a viewpoint at the viewpoint's size: colours averaged, depths picked.

    A frame without a depth image has the depth of the points of the scene that it sees.
    """
    frame = view.frame
    assert frame is not None
    color = frame.read_color().float() / 255.0 if frame.has_color else None
    visible = frame.read_visible()
    height, width = view.camera.height, view.camera.width
    if not frame.has_depth:
        depth = sparse_depth(_seen(scene, view.camera), view.camera)
        if color is not None and color.shape[:2] != (height, width):
            color = _smaller(color, height, width)
        return RecordedView(color, depth, _picked(visible, height, width), is_sparse=True)
    depth = frame.read_depth()
    if depth.shape == (height, width):
        return RecordedView(color, depth, visible)
    if color is not None:
        color = _smaller(color, height, width)
    return RecordedView(color, _picked(depth, height, width), _picked(visible, height, width))


def _smaller(
    color: Float[Tensor, "row column 3"], height: int, width: int
) -> Float[Tensor, "rows columns 3"]:
    smaller = torch.nn.functional.interpolate(color.movedim(-1, 0)[None], (height, width), mode="area")
    return smaller[0].movedim(0, -1)


def _picked(values: Tensor, height: int, width: int) -> Tensor:
    rows = ((torch.arange(height) + 0.5) * values.shape[0] / height).long()
    columns = ((torch.arange(width) + 0.5) * values.shape[1] / width).long()
    return values[rows][:, columns]


def compare(rendered: RenderedImages, real: RecordedView, view: Viewpoint) -> dict[str, float]:
    """Metrics of a rendered view against its image; depth where both are known.

    Without colour neither psnr nor ssim; with a mask psnr of the visible pixels and no ssim.
    """
    errors = depth_errors(rendered.depth, real.depth, rendered.depth > 0)
    measured = normals_from_depth(real.depth, view.camera.intrinsics)  # of points there are none
    turn = torch.linalg.inv(view.camera.world_to_camera[:3, :3].double()).T.float()
    whole = bool(real.visible.all())
    colors: dict[str, float] = {}
    if real.color is not None:
        colors["psnr"] = psnr(rendered.color, real.color, None if whole else real.visible)
        colors["ssim"] = ssim(rendered.color, real.color) if whole else math.nan
    return {
        **colors,
        "depth_l1": errors.mean_absolute,
        "depth_rmse": errors.root_mean_square,
        "depth_median": errors.median,
        "depth_covered": float((rendered.depth > 0)[real.depth > 0].double().mean()),
        "normal_error": normal_error(rendered.normal @ turn.T, measured),
    }


def _means(rows: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Of held-out and of other frames."""
    means = {}
    for name, held_out in (("held_out", True), ("seen", False)):
        chosen = [row for row in rows if row["held_out"] is held_out]
        numbers = [{key: value for key, value in row.items() if type(value) is float} for row in chosen]
        if numbers:
            means[name] = mean_metrics(numbers)
    return means


def _depth_range(config: RenderConfig, scene: Scene) -> tuple[float, float]:
    """Metres: as set, or what a few frames measured, or the size of the scene."""
    if config.depth_range is not None:
        return config.depth_range
    frames = training_frames(scene.frames)
    chosen = frames[:: max(len(frames) // 8, 1)]
    depths = [
        depth[depth > 0]
        for depth in (
            frame.read_depth()[::4, ::4] if frame.has_depth else _seen(scene, frame.camera).depth
            for frame in chosen
        )
    ]
    measured = torch.cat(depths) if depths else torch.zeros(0)
    if len(measured) == 0:
        extent = scene.cloud.coord.amax(dim=0) - scene.cloud.coord.amin(dim=0)
        return 0.0, float(extent.norm())
    ordered = measured.sort().values
    return float(ordered[int(0.02 * len(ordered))]), float(ordered[int(0.98 * (len(ordered) - 1))])


def _video(config: RenderConfig, out: Path, cameras: CameraPath) -> Path | None:
    """Of what was written: side by side where that was asked for, else colour, else any kind."""
    if config.video == "none":
        return None
    kinds = ("side_by_side", "color", "depth_color", "normal", "semantic")
    folder = next(
        (out / kind for kind in kinds if (out / kind / f"{cameras.views[0].name}.png").is_file()), None
    )
    if folder is None:
        return None
    path = out / f"{folder.name}.{config.video}"
    speed = config.frames_per_second or max(round(cameras.frames_per_second or FRAMES_PER_SECOND), 1)
    write_video(path, _read(folder, cameras.views), speed)
    return path


def _read(folder: Path, views: tuple[Viewpoint, ...]) -> Iterator[RgbImage]:
    from ponderv2.io.images import read_color

    for view in views:
        yield read_color(folder / f"{view.name}.png")
