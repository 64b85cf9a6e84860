"""A checkpoint and a scene, or depth frames alone -> a coloured mesh, measured against a reference."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.errors import CheckpointError, SceneError
from ponderv2.evaluation.surfaces import SurfaceMetrics, compare_meshes
from ponderv2.geometry.meshes import Mesh, SurfacePoints
from ponderv2.out_of_memory import in_chunks
from ponderv2.reconstruction.fusion import colors_of, fuse_frames
from ponderv2.reconstruction.marching_cubes import Lattice, extract_surface
from ponderv2.reconstruction.meshes import (
    DepthView,
    check_mesh_path,
    colored,
    cropped,
    near_cloud,
    observed_points,
    observed_vertices,
    read_mesh,
    remove_small_components,
    write_mesh,
)
from ponderv2.reconstruction.scene_field import SceneField
from ponderv2.scenes.scene import Frame, Scene
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.config import ReconstructConfig
from ponderv2.workflows.scene_fields import FittedScene, fit_scene, open_field, save_refined, training_frames
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes

POINTS_AT_A_TIME = 65536


@dataclass(frozen=True)
class ReconstructResult:
    """The mesh, and how close it is to the reference."""

    mesh: Path
    n_vertices: int
    n_faces: int
    cell: float
    """Grid spacing at which the signed distance was evaluated, metres."""
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
    own, where it has one). With refinement the refined scene is written beside the mesh.

    Raises:
        SceneError: no such scene, no surface, or nothing of it where the scene was observed.
        CheckpointError: nothing that renders.
        OutputError: the mesh cannot be written.
    """
    report = report or SilentReporter()
    started = time.perf_counter()
    check_mesh_path(out)
    opened = None if checkpoint is None else open_checkpoint(checkpoint)
    store = open_scenes(SceneChoice.of(scenes, config), opened, report)
    read = store.read(scene, split)
    reference = reference or store.mesh_path(scene, split)
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
        cell, mesh = _extracted(field, read, config, report)
    write_mesh(out, mesh, origin)
    if any(origin) and out.suffix.lower() == ".glb":
        numbers = ", ".join(f"{one:.3f}" for one in origin)
        report.note(f"GLB knows single precision alone: add ({numbers}) m to its vertices")
    return ReconstructResult(
        mesh=out,
        n_vertices=len(mesh.vertices),
        n_faces=len(mesh.faces),
        cell=cell,
        reference=reference,
        metrics=None if truth is None else _measured(mesh, truth, read, config, report),
        refined=refined if fitted is not None else None,
        refine_steps=0 if fitted is None else fitted.steps,
        refine_seconds=0.0 if fitted is None else fitted.seconds,
        seconds=time.perf_counter() - started,
    )


def _fused(scene: Scene, config: ReconstructConfig, report: Reporter) -> Mesh:
    frames = [frame for frame in scene.frames if config.tsdf.include_held_out or not frame.held_out]
    frames = frames[:: config.tsdf.stride]
    if not frames:
        raise SceneError(f"scene '{scene.name}' has no depth frames", fix="--method field with a checkpoint")
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
    margin = 2 * config.crop_margin + 1e-3
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
        mesh = _observed(mesh, scene, training_frames(scene.frames), config.crop_margin, report)
    mesh = remove_small_components(mesh, config.min_component_faces)
    if config.color and scene.only_depth:
        report.note("no view of the scene has a colour image: the mesh has no colours")
    return lattice.cell, colored(mesh, field.color) if config.color and not scene.only_depth else mesh


def _observed(mesh: Mesh, scene: Scene, frames: tuple[Frame, ...], margin: float, report: Reporter) -> Mesh:
    """What some frame saw or, in a scene without frames, what lies near its points."""
    if not frames:
        return cropped(mesh, near_cloud(mesh, scene.cloud, margin))
    views = _views(report.track(frames, "crop", len(frames)))
    return cropped(mesh, observed_vertices(mesh, views, margin))


def _views(frames: Iterable[Frame]) -> Iterator[DepthView]:
    for frame in frames:
        yield DepthView(frame.camera, frame.read_depth())


def _measured(
    mesh: Mesh, truth: Mesh, scene: Scene, config: ReconstructConfig, report: Reporter
) -> SurfaceMetrics:
    """Completeness is measured on the reference points that a frame saw, not on whole faces."""

    def observed(surface: SurfacePoints) -> Bool[Tensor, " point"]:
        views = _views(report.track(scene.frames, "compare", len(scene.frames)))
        visible = observed_points(surface, views, config.threshold)
        if not bool(visible.any()):
            raise SceneError(
                f"no frame of scene '{scene.name}' sees the reference mesh",
                fix="a reference in the frame of the scene, or --set crop_reference=false",
            )
        return visible

    generator = torch.Generator().manual_seed(0)
    expected = observed if config.crop_reference and scene.frames else None
    return compare_meshes(mesh, truth, generator, config.threshold, config.compared_points, expected)
