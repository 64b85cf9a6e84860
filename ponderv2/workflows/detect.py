"""A trained detector -> boxes of a cloud in a file, or of a scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ponderv2.errors import CheckpointError, OutputError, SceneError
from ponderv2.io.files import write_bytes
from ponderv2.scenes.point_cloud_files import read_cloud_with_notes
from ponderv2.scenes.scene import Scene
from ponderv2.tasks.box_pictures import write_boxes, write_pictures
from ponderv2.tasks.checkpoints import loaded_model, open_checkpoint, task_of_checkpoint
from ponderv2.tasks.detector import box_values
from ponderv2.training.devices import chosen_device
from ponderv2.training.report import Reporter, SilentReporter
from ponderv2.workflows.scene_folders import SceneChoice, open_scenes


@dataclass(frozen=True)
class DetectResult:
    """What was found."""

    checkpoint: Path
    source: str
    """File or scene."""
    out: Path | None
    n_boxes: int
    by_class: dict[str, int]
    boxes: list[dict[str, Any]]
    """The surest first: class, score, center, size (length, width, height), yaw and, where it is predicted,
    velocity; the file also has their corners. Metres, radians, z up, in the frame of the scene, or of the
    file after scale and axes."""
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(  # noqa: PLR0913 - one argument per option of the command
    checkpoint: Path,
    *,
    file: Path | None = None,
    scene: str | None = None,
    scenes: Path | None = None,
    split: str | None = None,
    out: Path | None = None,
    ply: Path | None = None,
    pictures: Path | None = None,
    min_score: float | None = None,
    scale: float = 1.0,
    up_axis: str = "z",
    device: str = "auto",
    report: Reporter | None = None,
) -> DetectResult:
    """Detects the objects of the cloud in `file`, or of `scene`.

    Args:
        checkpoint: A detector that `ponder finetune` trained.
        file: A point cloud.
        scene: A scene of the folder `scenes`; its name may be short.
        scenes: By default the folder that the checkpoint was trained on.
        split: Where the scene is looked for; by default everywhere.
        out: JSON file of the boxes.
        ply: The edges of the boxes as coloured points.
        pictures: Folder for pictures: from above and, of a scene with images, in these.
        min_score: Less sure boxes are left out. None: as the head of the model is usually shown.
        scale: Metres per unit of the file.
        up_axis: Axis of the file that points up.
        device: auto, cpu or cuda.
        report: Receives messages.

    Raises:
        CheckpointError: it cannot be read, holds no detector, or its encoder takes what a file does not have.
        SceneError: no such scene, or a file that cannot be read.
        OutputError: something cannot be written.
        ResourceError: no such device.
    """
    report = report or SilentReporter()
    if (file is None) == (scene is None):
        raise SceneError("one cloud is needed", fix="give either --ply FILE or --scene NAME")
    _check_ending("--out", out, ".json")
    _check_ending("--boxes", ply, ".ply")
    opened = open_checkpoint(checkpoint)
    loaded = loaded_model(opened, chosen_device(device))
    detector = task_of_checkpoint(opened).detector(loaded)
    if detector is None:
        raise CheckpointError(
            f"{checkpoint} holds no detector", fix="ponder finetune --preset streets_detection trains one"
        )
    notes: tuple[str, ...] = ()
    if file is not None:
        read = read_cloud_with_notes(Path(file), scale, up_axis)
        found, added = detector.in_cloud(read.cloud)
        seen, notes = Scene(Path(file).name, read.cloud), (*read.notes, *added)
    else:
        assert scene is not None
        store = open_scenes(SceneChoice(None if scenes is None else Path(scenes)), opened)
        name = store.full_name(scene, split)
        holds = [one for one in ((split,) if split else store.info.splits) if name in store.names(one)]
        if not holds:
            raise SceneError(f"'{name}' is in no split of {store.root}", fix="--split NAME")
        found = detector.in_scene(store, holds[0], name)
        seen = store.read(name, holds[0], labels=False)
    for note in notes:
        report.warn(note)
    least = detector.shown_score if min_score is None else min_score
    found = found.take(found.score >= least)
    rows = box_values(found, detector.classes, seen.cloud.origin)
    if out is not None:
        write_bytes(out, json.dumps({"source": seen.name, "boxes": rows}, indent=1).encode())
    if ply is not None:
        write_boxes(ply, found, seen.cloud.origin)
    drawn = [] if pictures is None else write_pictures(pictures, seen, found, None, detector.classes)
    for row in rows:
        del row["corners"]
    names = [row["class"] for row in rows]
    return DetectResult(
        checkpoint=Path(checkpoint),
        source=seen.name,
        out=out,
        n_boxes=len(rows),
        by_class={name: names.count(name) for name in detector.classes if name in names},
        boxes=rows,
        pictures=drawn,
        notes=list(notes),
    )


def _check_ending(option: str, path: Path | None, ending: str) -> None:
    if path is not None and path.suffix.lower() != ending:
        raise OutputError(f"cannot write boxes as '{path.name}'", fix=f"{option} {path.with_suffix(ending)}")
