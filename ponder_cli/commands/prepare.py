"""`ponder prepare`: raw recordings, datasets or generated rooms -> prepared scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ponder_cli.options import JsonOption, SetOption

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ponder_cli.layers import Override
    from ponderv2.workflows.prepare import SceneOutcome


MOST_LINES = 60
"""Scenes in the table; of more only those that went wrong."""


def _recording(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel="Recordings (rgbd)")


def _generic(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel="Recordings of --layout generic")


def _generated(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel="Generated rooms (synthetic)")


def prepare(  # noqa: PLR0913 - one argument per option
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="rgbd, synthetic, ... (see `ponder presets`) or a YAML file."),
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="The raw data; generated rooms need none.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the prepared scenes.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the scenes that are prepared already.")
    ] = False,
    layout: Annotated[
        str | None, _recording("--layout", "Layout of the recording where the guess is wrong, or generic.")
    ] = None,
    stride: Annotated[int | None, _recording("--stride", "Take every N-th frame.")] = None,
    max_frames: Annotated[
        int | None, _recording("--max-frames", "At most so many frames, evenly spread.")
    ] = None,
    holdout: Annotated[
        int | None, _recording("--holdout", "Keep every N-th frame for validation, out of training.")
    ] = None,
    depth_min: Annotated[float | None, _recording("--depth-min", "Drop nearer depth, metres.")] = None,
    depth_max: Annotated[float | None, _recording("--depth-max", "Drop farther depth, metres.")] = None,
    depth_scale: Annotated[
        float | None, _recording("--depth-scale", "Metres per unit of the depth pictures, e.g. 0.001.")
    ] = None,
    intrinsics: Annotated[
        Path | None, _recording("--intrinsics", "File of the depth camera: 3x3 numbers or fx fy cx cy.")
    ] = None,
    color_intrinsics: Annotated[
        Path | None, _recording("--color-intrinsics", "File of the colour camera, where it is another one.")
    ] = None,
    depth_to_color: Annotated[
        Path | None, _recording("--depth-to-color", "File of 4x4 numbers: x_color = M x_depth, metres.")
    ] = None,
    up: Annotated[
        str | None, _recording("--up", "Axis of the recording that points up: x, -x, y, -y, z, -z.")
    ] = None,
    voxel: Annotated[float | None, _recording("--voxel", "Cell of the fused surface, metres.")] = None,
    poses: Annotated[
        str | None, _generic("--poses", "NAME", "File of the poses in the recording, or folder of files.")
    ] = None,
    color_dir: Annotated[
        str | None, _generic("--color-dir", "NAME", "Folder of the colour images; none = depth only.")
    ] = None,
    depth_dir: Annotated[str | None, _generic("--depth-dir", "NAME", "Folder of the depth images.")] = None,
    quaternion: Annotated[
        str | None, _generic("--quaternion", "xyzw|wxyz", "Order of the numbers of a quaternion.")
    ] = None,
    direction: Annotated[
        str | None,
        _generic("--direction", "camera_to_world|world_to_camera", "What the poses map to what."),
    ] = None,
    axes: Annotated[
        str | None, _generic("--axes", "opencv|opengl|ros", "Axes of the cameras: y down, y up, x forward.")
    ] = None,
    noxyz: Annotated[
        Path | None,
        typer.Option(
            "--noxyz",
            metavar="DIR",
            help="Folder with area_1 .. area_6 of 2D-3D-S: photographs and normals for s3dis.",
            rich_help_panel="Datasets",
        ),
    ] = None,
    rooms: Annotated[int | None, _generated("--rooms", "Number of rooms.")] = None,
    seed: Annotated[int | None, _generated("--seed", "Room i follows from seed and i.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when one scene cannot be prepared.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; by default one per core.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="A cluster: dask://HOST:8786 or ray://HOST:10001."
        ),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = None,
) -> None:
    """Prepare scenes: ponder prepare rgbd PATH, ponder prepare synthetic --rooms 40.

    Continues where it was interrupted, and checks at the end that frames, depths and poses fit together.
    """
    from ponder_cli import console
    from ponder_cli.layers import option
    from ponder_cli.presets import load_preset
    from ponder_cli.progress import ConsoleReporter
    from ponderv2.workflows.config import PrepareConfig

    options = (
        *option("PATH", "source.path", path),
        *option("--layout", "source.layout", layout),
        *option("--stride", "source.stride", stride),
        *option("--max-frames", "source.max_frames", max_frames),
        *option("--holdout", "source.holdout", holdout),
        *option("--depth-min", "source.depth_min", depth_min),
        *option("--depth-max", "source.depth_max", depth_max),
        *option("--depth-scale", "source.depth_scale", depth_scale),
        *option("--intrinsics", "source.intrinsics", intrinsics),
        *option("--color-intrinsics", "source.color_intrinsics", color_intrinsics),
        *option("--depth-to-color", "source.depth_to_color", depth_to_color),
        *option("--up", "source.up", up),
        *option("--voxel", "source.fusion.voxel_size", voxel),
        *option("--poses", "source.generic.poses", poses),
        *option("--color-dir", "source.generic.color", color_dir),
        *option("--depth-dir", "source.generic.depth", depth_dir),
        *option("--quaternion", "source.generic.quaternion", quaternion),
        *option("--direction", "source.generic.direction", direction),
        *option("--axes", "source.generic.axes", axes),
        *option("--noxyz", "source.noxyz", noxyz),
        *option("--rooms", "source.rooms", rooms),
        *option("--seed", "source.seed", seed),
        *option("--workers", "workers", workers),
        *option("--scheduler", "scheduler", scheduler),
        *option("--out", "out", out),
    )
    _refuse_foreign(load_preset("prepare", source, set_, PrepareConfig).source, options)
    config = load_preset("prepare", source, set_, PrepareConfig, options)

    from ponderv2.workflows import prepare as workflow

    report = ConsoleReporter()
    result = workflow.check(config, report) if check else workflow.run(config, report, strict=strict)
    columns = ("scene", "status", "frames", "points", "error cm", "agree %", "suspicion")
    shown = _worth_a_line(result.scenes)
    console.table(columns, [_row(scene) for scene in shown])
    if len(shown) < len(result.scenes):
        console.say(f"{len(result.scenes) - len(shown)} more scenes are in {workflow.REPORT_FILE}")
    rows = [(one.status, one.scenes, one.reason, one.example) for one in result.summary]
    console.table(("status", "scenes", "reason", "for instance"), rows)
    console.say(
        f"{result.n_prepared} prepared, {result.n_skipped} skipped, {result.n_failed} failed, "
        f"{result.n_suspect} suspect, in {result.out}"
    )
    console.write_json(result, json)
    photographed = any(scene.n_frames or scene.status == "skipped" for scene in result.scenes)
    console.next_command(*_usual_next(config.source.kind, photographed), "--data", config.out)


def _usual_next(kind: str, photographed: bool) -> tuple[str, ...]:
    """The command and preset that suit the scenes; without photographs there is nothing to render."""
    if kind == "synthetic":
        return ("pretrain",)
    if kind == "rgbd":
        return ("pretrain", "--preset", "capture")
    if not photographed:
        return ("finetune", "--preset", f"{kind}_semantic_scratch", "--scratch")
    return ("pretrain", "--preset", "indoor" if kind == "scannetpp" else kind)


def _refuse_foreign(source: BaseModel, options: tuple[Override, ...]) -> None:
    """Options that mean nothing to this kind of source. Raises PresetError."""
    from ponder_cli.kinds import kind_of
    from ponderv2.errors import PresetError

    kind = kind_of(type(source))
    for item in options:
        if item.path[0] == "source" and item.path[1] not in type(source).model_fields:
            raise PresetError(
                f"{item.origin} means nothing to the source '{kind}'", fix=f"leave {item.origin} out"
            )


def _worth_a_line(scenes: tuple[SceneOutcome, ...]) -> list[SceneOutcome]:
    """All scenes, or of very many those that went wrong, at most as many as one reads."""
    if len(scenes) <= MOST_LINES:
        return list(scenes)
    wrong = [one for one in scenes if one.status == "failed" or (one.check is not None and one.check.suspect)]
    return wrong[:MOST_LINES]


def _row(scene: SceneOutcome) -> tuple[object, ...]:
    """One line of the table: the reprojection error says how well depth, poses and intrinsics agree."""
    found = scene.check
    error = None if found is None or found.median_error is None else 100.0 * found.median_error
    share = None if found is None or found.inlier_share is None else 100.0 * found.inlier_share
    cause = found.likely_cause if found is not None and found.suspect else ""
    words = cause or (scene.why[0] if scene.status == "failed" else "")
    return (f"{scene.split}/{scene.name}", scene.status, scene.n_frames, scene.n_points, error, share, words)
