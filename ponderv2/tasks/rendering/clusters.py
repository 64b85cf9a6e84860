"""The clusters of a run: found once in its training scenes, kept in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ponderv2.data.clusters import ClusterFit, Clustering, digest_of
from ponderv2.data.config import PretrainDataConfig
from ponderv2.data.datasets import checked
from ponderv2.data.preprocess import with_near_points
from ponderv2.errors import SceneError
from ponderv2.scenes.scene import evenly_spread
from ponderv2.tasks.task import OpenPart
from ponderv2.training.report import Reporter

CLUSTERS_FILE = "clusters.safetensors"
"""In the folder of a run."""


def find_clusters(
    parts: Sequence[OpenPart[PretrainDataConfig]], folder: Path, resumed: bool, report: Reporter
) -> None:
    """Writes the centres into the folder of the run, unless they are there.

    A run that is resumed keeps its own; an interrupted start is used if settings and scenes are the same.
    Scenes that cannot be read are left out: training replaces and reports them.

    Raises:
        SceneError: the scenes have fewer cells than there are clusters.
        OutputError: the file cannot be written.
    """
    data = parts[0].part.data  # all parts share the settings of clusters
    config, chosen = data.clusters_used, data.clusters is not None
    scenes = [
        (part, name)
        for part in parts
        for name in evenly_spread(
            part.store.names(part.part.train_split, with_frames=True), config.sample_scenes
        )
    ]
    digest = digest_of(config, [f"{part.store.info.name}/{part.part.train_split}/{n}" for part, n in scenes])
    stored = Clustering.read(folder / CLUSTERS_FILE)
    if stored is not None and stored.config == config and (resumed or stored.digest == digest):
        return
    fit = ClusterFit(config, len(scenes))
    for part, name in report.track(scenes, "clusters of surroundings", len(scenes)):
        with contextlib.suppress(SceneError):
            scene = part.store.read(name, part.part.train_split, labels=False, frames="none")
            fit.add(with_near_points(checked(scene)))
    fit.fit(digest).write(folder / CLUSTERS_FILE)
    without = {"color": "colours", "normal": "normals"}
    missing = " and ".join(without[group] for group in fit.left_out)
    report.note(
        f"{config.n_clusters} clusters of the surroundings of {fit.n_cells:,} cells in {fit.n_scenes} scenes"
        + (f"; {missing} are left out, as most scenes have none" if missing else "")
        + ("" if chosen else f"; data.clusters is null: the usual ones, of cells of {config.cell:g} m")
    )


def read_clusters(folder: Path) -> Clustering:
    """The centres of a run. Raises SceneError where they are missing or damaged."""
    found = Clustering.read(folder / CLUSTERS_FILE)
    if found is None:
        raise SceneError(
            f"{folder / CLUSTERS_FILE} is missing or damaged", fix="run the same command with --resume"
        )
    return found
