"""A checkpoint and a scene, or depth frames alone -> a coloured mesh, measured against another, or points."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.errors import CheckpointError, SceneError
from ponderv2.evaluation.surfaces import SurfaceMetrics, compare_meshes
from ponderv2.geometry.meshes import Mesh, SurfacePoints, vertex_normals
from ponderv2.out_of_memory import in_chunks
from ponderv2.reconstruction.fusion import colors_of, fuse_frames
from ponderv2.reconstruction.marching_cubes import Lattice, extract_surface
from ponderv2.reconstruction.meshes import (
    DepthView,
    check_mesh_path,
    colored,
    cropped,
    observed_points,
    points_near_cloud,
    read_mesh,
    remove_small_components,
    write_mesh,
)
from ponderv2.reconstruction.rendered_points import (
    ColoredPoints,
    check_points_path,
    rendered_points,
    write_points,
)
from ponderv2.reconstruction.scene_field import SceneField
from ponderv2.scenes.scene import Frame, Scene, evenly_spread
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import ReconstructConfig
from ponderv2.workflows.scene_fields import (
    FittedScene,
    as_trained,
    fit_scene,
    open_field,
    save_refined,
    training_frames,
)
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes

POINTS_AT_A_TIME = 65536
LEAST_MARGIN = 0.10
"""Metres around what was measured within which surface is kept, unless the settings say otherwise."""
OTHERS = {
    "field": ("tsdf", "points"),
    "tsdf": ("points", "crop_to_observed", "crop_margin", "color"),
    "points": ("tsdf", "min_component_faces", "threshold", "compared_points", "crop_reference"),
}
"""Settings that a method does not go by. `resolution`, which presets set, is not among them."""


@dataclass(frozen=True)
class ReconstructResult:
    """The mesh, and how close it is to the reference."""

    mesh: Path
    """Or the points."""
    n_vertices: int
    """Of the mesh, or number of points."""
    n_faces: int
    """0 for points."""
    cell: float
    """Grid spacing at which the signed distance was evaluated, metres; 0 for points."""
    reference: Path | None = None
    metrics: SurfaceMetrics | None = None
    refined: Path | None = None
    """The refined scene: `ponder render` takes it as a checkpoint."""
    refine_steps: int = 0
    refine_seconds: float = 0.0
    seconds: float = 0.0


def run(
    config: ReconstructConfig,
    *,
    scene: str,
    out: Path = Path("mesh.ply"),
    checkpoint: Path | None = None,
    scenes: Path | None = None,
    split: str | None = None,
    reference: Path | None = None,
    report: Reporter | None = None,
) -> ReconstructResult:
    """Writes the mesh of a scene to `out` (.ply, .obj, .glb), in metres and in the frame of the scene.

    A scene that lay far from zero has its mesh there again (not in GLB).

    `scenes` is the folder of prepared scenes, `reference` a mesh to measure against (by default the scene's
    own, where it has one). With refinement the refined scene is written beside the mesh. `method: points`
    writes a cloud of points (.ply), which is not measured.

    Raises:
        SceneError: no such scene, no surface, or nothing of it where the scene was observed.
        CheckpointError: nothing that renders.
        OutputError: the mesh cannot be written.
    """
    report = report or SilentReporter()
    started = time.perf_counter()
    of_points = config.method == "points"
    (check_points_path if of_points else check_mesh_path)(out)
    usual = ReconstructConfig()
    unused = [one for one in OTHERS[config.method] if getattr(config, one) != getattr(usual, one)]
    if unused:
        report.warn(f"no effect with --method {config.method}: {', '.join(unused)}")
    opened = None if checkpoint is None else open_checkpoint(checkpoint)
    store = open_scenes(SceneChoice.of(scenes, config), opened, report)
    scene = store.full_name(scene, split)
    read = as_trained(store.read(scene, split), store.root, opened)
    if of_points and reference is not None:
        report.warn("--reference is for meshes: points are not measured")
    reference = None if of_points else reference or store.mesh_path(scene, split)
    origin = read.cloud.origin
    truth = None if reference is None else read_mesh(reference, origin)
    fitted, refined = None, out.with_suffix(".refined.pth")
    if config.method == "tsdf":
        if config.refine.steps > 0:
            report.warn("--refine is for models: fusion of depth frames has nothing to refine")
        cell, mesh = config.tsdf.voxel_size, _fused(read, config, report)
    else:
        field, fitted = _field((read, store.info.name), config, opened, report)
        if fitted is not None:  # before anything else can fail: refinement takes longest
            save_refined(refined, fitted, scene, store.root)
        if of_points:
            points = _rendered(field, read, config, report)
            write_points(out, points, origin)
            return _with_refinement(
                ReconstructResult(out, len(points), 0, 0.0), fitted, refined, time.perf_counter() - started
            )
        cell, mesh = _extracted(field, read, config, report)
    write_mesh(out, mesh, origin)
    if any(origin) and out.suffix.lower() == ".glb":
        numbers = ", ".join(f"{one:.3f}" for one in origin)
        report.note(f"GLB knows single precision alone: add ({numbers}) m to its vertices")
    result = ReconstructResult(
        mesh=out,
        n_vertices=len(mesh.vertices),
        n_faces=len(mesh.faces),
        cell=cell,
        reference=reference,
        metrics=None if truth is None else _measured(mesh, truth, read, config, report),
    )
    return _with_refinement(result, fitted, refined, time.perf_counter() - started)


def _with_refinement(
    result: ReconstructResult, fitted: FittedScene | None, refined: Path, seconds: float
) -> ReconstructResult:
    if fitted is None:
        return replace(result, seconds=seconds)
    return replace(
        result,
        refined=refined,
        refine_steps=fitted.steps,
        refine_seconds=fitted.seconds,
        seconds=seconds,
    )


def _fused(scene: Scene, config: ReconstructConfig, report: Reporter) -> Mesh:
    frames = [frame for frame in scene.frames if frame.has_depth]
    frames = [frame for frame in frames if config.tsdf.include_held_out or not frame.held_out]
    frames = frames[:: config.tsdf.stride]
    if not frames:
        raise SceneError(f"scene '{scene.name}' has no depth images", fix="--method field with a checkpoint")
    colors = colors_of(frame.has_color for frame in frames)
    if colors != "all":
        n_without = sum(not frame.has_color for frame in frames)
        report.note(f"{n_without} of {len(frames)} frames have depth alone: the mesh takes no colour of them")
    mesh = fuse_frames(report.track(frames, "fuse", len(frames)), config.tsdf, colors)
    return remove_small_components(mesh, config.min_component_faces)


def _field(
    source: tuple[Scene, str], config: ReconstructConfig, checkpoint: OpenCheckpoint | None, report: Reporter
) -> tuple[SceneField, FittedScene | None]:
    """The field of a scene of a dataset, fitted to its frames where that is asked for."""
    if checkpoint is None:
        raise CheckpointError("a model is needed", fix="ponder pretrain, or --method tsdf")
    scene, dataset = source
    field = open_field(checkpoint, scene, config.device, dataset, report)
    if config.refine.steps == 0:
        return field, None
    fitted = fit_scene(scene, config.refine, field, report)
    return fitted.field, fitted


@torch.no_grad()
def _extracted(
    field: SceneField, scene: Scene, config: ReconstructConfig, report: Reporter
) -> tuple[float, Mesh]:
    """The surface of a field: where it was observed, without small components, coloured."""
    reach = _margin(field, scene, config)
    margin = 2 * reach + 1e-3
    lower = torch.maximum(scene.cloud.coord.amin(dim=0) - margin, field.lower.cpu())
    upper = torch.minimum(scene.cloud.coord.amax(dim=0) + margin, field.upper.cpu())
    if not bool((upper > lower).all()):
        raise CheckpointError("the model's volume does not reach the scene")
    lattice = Lattice.covering(lower, upper, float((upper - lower).amax()) / config.resolution)

    def signed_distance(points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        parts = in_chunks(lambda rows: field.signed_distance(points[rows]), len(points), POINTS_AT_A_TIME)
        return torch.cat(parts)

    def occupied(low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> bool:
        coord = scene.cloud.coord
        return bool(((coord > low - margin) & (coord < high + margin)).all(dim=-1).any())

    report.note(f"marching cubes on {' x '.join(map(str, lattice.size))} points, {lattice.cell:.3f} m apart")
    mesh = extract_surface(signed_distance, lattice, occupied=occupied if config.crop_to_observed else None)
    if config.crop_to_observed:
        surface = SurfacePoints(mesh.vertices, vertex_normals(mesh))
        mesh = cropped(mesh, _observed(surface, scene, reach, report))
    mesh = remove_small_components(mesh, config.min_component_faces)
    return lattice.cell, colored(mesh, field.color) if _wants_color(field, scene, config, report) else mesh


def _rendered(field: SceneField, scene: Scene, config: ReconstructConfig, report: Reporter) -> ColoredPoints:
    """What the cameras of a scene see of a field, where it was observed."""
    settings = config.points
    frames = evenly_spread(training_frames(scene.frames), settings.max_frames)
    if not frames:
        raise SceneError(f"scene '{scene.name}' has no cameras to render points from", fix="--method field")
    points = rendered_points(
        field, report.track(frames, "render", len(frames)), settings.stride, config.color, settings.chunk
    )
    if config.crop_to_observed:
        n_rendered = len(points)
        points = points.take(_observed(points.surface, scene, _margin(field, scene, config), report))
        report.note(f"{len(points)} of {n_rendered} rendered points lie where the scene was observed")
    if len(points) == 0:
        raise SceneError(
            "no camera of the scene renders a surface that was observed",
            fix="train longer, or --set crop_to_observed=false to see all of it",
        )
    if config.color and points.color is None:
        report.note("neither the model nor the images of the scene have colours: the points have none")
    return points


def _wants_color(field: SceneField, scene: Scene, config: ReconstructConfig, report: Reporter) -> bool:
    """Whether a mesh gets colours; what is missing is reported."""
    if config.color and scene.only_depth:
        report.note("no view of the scene has a colour image: the mesh has no colours")
    elif config.color and not field.has_color:
        report.note("the model renders depth alone: the mesh has no colours")
    return config.color and not scene.only_depth and field.has_color


def _margin(field: SceneField, scene: Scene, config: ReconstructConfig) -> float:
    """Metres around what was measured within which surface is kept."""
    if config.crop_margin is not None:
        return config.crop_margin
    has_depth = any(frame.has_depth for frame in scene.frames)
    return LEAST_MARGIN if has_depth or not scene.frames else max(LEAST_MARGIN, field.cell)


def _observed(
    surface: SurfacePoints, scene: Scene, margin: float, report: Reporter
) -> Bool[Tensor, " point"]:
    """What some frame measured or, in a scene without depth images, what lies near its points."""
    frames = tuple(frame for frame in scene.frames if frame.has_depth)
    if not frames:
        return points_near_cloud(surface, scene.cloud, margin)
    frames = training_frames(frames)
    return observed_points(surface, _views(report.track(frames, "crop", len(frames))), margin)


def _views(frames: Iterable[Frame]) -> Iterator[DepthView]:
    for frame in frames:
        yield DepthView(frame.camera, frame.read_depth())


def _measured(
    mesh: Mesh, truth: Mesh, scene: Scene, config: ReconstructConfig, report: Reporter
) -> SurfaceMetrics:
    """Completeness is measured on the reference points that a frame saw, not on whole faces."""
    measured = [frame for frame in scene.frames if frame.has_depth]

    def observed(surface: SurfacePoints) -> Bool[Tensor, " point"]:
        views = _views(report.track(measured, "compare", len(measured)))
        visible = observed_points(surface, views, config.threshold)
        if not bool(visible.any()):
            raise SceneError(
                f"no frame of scene '{scene.name}' sees the reference mesh",
                fix="a reference in the frame of the scene, or --set crop_reference=false",
            )
        return visible

    generator = torch.Generator().manual_seed(0)
    expected = observed if config.crop_reference and measured else None
    return compare_meshes(mesh, truth, generator, config.threshold, config.compared_points, expected)
