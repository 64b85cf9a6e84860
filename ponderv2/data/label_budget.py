"""Label budgets: which scenes and points keep their labels, at random or by the lists of a benchmark."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.data.config import LabelBudgetConfig
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_file
from ponderv2.io.text import content_lines, read_text
from ponderv2.randomness import make_generator
from ponderv2.scenes.scene import PointCloud, Scene


def budget_scenes(names: tuple[str, ...], config: LabelBudgetConfig) -> tuple[str, ...]:
    """The labelled scenes, in the order of `names`. More of them, or of drives, are a superset of fewer.

    Raises:
        SceneError: a named scene does not exist, or there are fewer scenes than requested.
    """
    if config.drives is not None or config.scenes_per_drive is not None:
        names = _of_drives(names, config)
    if config.share is not None:
        return _drawn(names, max(1, round(config.share * len(names))), config.seed)
    if config.scenes_file is not None:
        return _named_scenes(names, _read_names(config.scenes_file), str(config.scenes_file))
    match config.scenes:
        case None:
            return names
        case int(number):
            return _drawn(names, number, config.seed)
        case chosen:
            return _named_scenes(names, chosen, "the budget")


def _drawn(names: tuple[str, ...], number: int, seed: int) -> tuple[str, ...]:
    """That many at random, in the order of `names`."""
    if number > len(names):
        raise SceneError(
            f"{number} labelled scenes asked for, {len(names)} there",
            fix=f"--set data.budget.scenes={len(names)}, or prepare more scenes",
        )
    order = torch.randperm(len(names), generator=make_generator("labelled scenes", seed))
    return tuple(names[i] for i in sorted(order[:number].tolist()))


def _of_drives(names: tuple[str, ...], config: LabelBudgetConfig) -> tuple[str, ...]:
    """The scenes of as many drives as the settings say, and of each as many as they say, at random."""
    drives: dict[str, list[str]] = {}
    for name in names:
        drives.setdefault(name.rpartition("/")[0] or name, []).append(name)
    number = config.drives or len(drives)
    if number > len(drives):
        raise SceneError(
            f"{number} labelled drives asked for, {len(drives)} there", fix="prepare more of them"
        )
    order = torch.randperm(len(drives), generator=make_generator("labelled drives", config.seed))
    every = list(drives)
    kept: set[str] = set()
    for drive in (every[i] for i in order[:number].tolist()):
        generator = make_generator("labelled scenes of a drive", config.seed, drive)
        chosen = torch.randperm(len(drives[drive]), generator=generator)[: config.scenes_per_drive]
        kept.update(drives[drive][i] for i in chosen.tolist())
    return tuple(name for name in names if name in kept)


def _named_scenes(names: tuple[str, ...], chosen: tuple[str, ...], source: str) -> tuple[str, ...]:
    known, wanted = set(names), set(chosen)
    missing = [name for name in chosen if name not in known]
    if missing:
        raise SceneError(
            f"no scene '{missing[0]}' in this split, and {source} names it ({len(missing)} are missing)",
            fix=f"prepare it too; there are: {', '.join(names[:5])}, ...",
        )
    return tuple(name for name in names if name in wanted)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(name for line in content_lines(read_text(path)) for name in line.split())
    except SceneError as error:
        raise SceneError(error.message, fix="give a list, one scene a line") from error
    if not names:
        raise SceneError(f"{path} names no scenes", fix="give a list, one scene a line")
    return names


def apply_label_budget(scene: Scene, config: LabelBudgetConfig, label_field: str) -> Scene:
    """All labels but those of the chosen points become -1, in every label array.

    Chosen are the points that the list names and that have a class, or `points_per_scene` random labelled
    points: by the seed of the budget and the name of the scene only, more points a superset of fewer.
    The field `labelled` (1 or 0) marks them for every later step that drops points.

    Raises:
        SceneError: the list does not know the scene, or names points that it does not have.
    """
    if not config.counts_points:
        return scene
    segment = scene.cloud.labels[label_field]
    if config.points_file is not None:
        listed = _listed_points(scene, config.points_file)
        chosen = listed[segment[listed] >= 0]
    else:
        candidates = torch.nonzero(segment >= 0)[:, 0]
        generator = make_generator("labelled points", config.seed, scene.name)
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[: config.points_per_scene]]
    labelled = torch.zeros(len(segment), dtype=torch.long)
    labelled[chosen] = 1
    labels = {
        name: torch.where(labelled > 0, values, torch.full_like(values, -1))
        for name, values in scene.cloud.labels.items()
    }
    return replace(scene, cloud=replace(scene.cloud, labels={**labels, "labelled": labelled}))


def _listed_points(scene: Scene, path: Path) -> Int[Tensor, " listed"]:
    try:
        content = digest_of_file(path)
    except OSError as error:
        raise SceneError(
            f"cannot read {path}: {error.strerror or error}", fix="set data.budget.points_file to the list"
        ) from error
    points = _read_points(path, content)
    if scene.name not in points:
        raise SceneError(
            f"{path} lists no points of scene '{scene.name}', only of {len(points)} others",
            fix="train on the scenes of the list",
        )
    listed = points[scene.name]
    if len(listed) and (listed.min() < 0 or listed.max() >= len(scene.cloud)):
        raise SceneError(
            f"{path} names point {int(listed.max())} of scene '{scene.name}', which has {len(scene.cloud)}",
            fix="its numbers are vertices of the mesh: prepare the scene with all of them",
        )
    return torch.from_numpy(listed)


@lru_cache(maxsize=4)
def _read_points(path: Path, content: str) -> dict[str, Int[np.ndarray, " listed"]]:
    """Points by scene; nothing in the file is run. `content` is its digest: a changed file is read again."""
    from ponderv2.io.safe_pickle import read_pickled

    found: dict[str, Int[np.ndarray, " listed"]] = {}
    for name, values in read_pickled(path).items():
        try:
            points = np.asarray(values)
        except ValueError as error:
            raise SceneError(f"{path} holds no list of points for '{name}'") from error
        if points.dtype.kind not in "iu" and points.size:
            raise SceneError(f"{path} holds no list of point numbers for '{name}' but {points.dtype}")
        found[name] = np.unique(points.astype(np.int64))
    return found


def with_budget(kept: Int[Tensor, " kept"], cloud: PointCloud) -> Int[Tensor, " all"]:
    """The kept points and, after them, the points of a label budget that were not kept."""
    if "labelled" not in cloud.labels:
        return kept
    missing = cloud.labels["labelled"] > 0
    missing[kept] = False
    return torch.cat([kept, torch.nonzero(missing)[:, 0]])
