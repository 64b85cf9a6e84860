"""Clusters of surroundings: k-means over the cells of the training scenes, a target that needs no labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.data.cell_statistics import GROUPS, CellStatistics, Group, cell_statistics, statistics_of
from ponderv2.data.config import ClustersConfig
from ponderv2.data.voxelise import voxelise
from ponderv2.errors import SceneError
from ponderv2.geometry.nearest_points import NearestPoints
from ponderv2.io.files import write_bytes
from ponderv2.randomness import make_generator
from ponderv2.scenes.scene import Scene

FORMAT = "1"
"""Changes whenever the statistics change."""
MOST_DEVIATIONS = 4.0
"""Standardised statistics are clipped to this."""
ROUNDS = 50
"""Of k-means, unless nothing changes any more."""


@dataclass(frozen=True)
class Clustering:
    """Centres of clusters, and how statistics are scaled before they are compared with them."""

    centre: Float[Tensor, "cluster statistic"]
    mean: Float[Tensor, " statistic"]
    deviation: Float[Tensor, " statistic"]
    widths: Mapping[Group, int]
    """Statistics of each group that is used, in this order."""
    config: ClustersConfig
    digest: str
    """Of settings and training scenes."""

    def __len__(self) -> int:
        return len(self.centre)

    def scaled(self, found: CellStatistics) -> Float[Tensor, "cell statistic"]:
        """Standardised statistics; those that the cloud lacks are at their mean."""
        values, there = statistics_of(found, tuple(self.widths), self.widths)
        scaled = ((values - self.mean) / self.deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        return scaled * there

    def of_points(self, scene: Scene) -> Int[Tensor, " point"]:
        """Cluster of every point: that of its cell, whose centre is the nearest."""
        found = cell_statistics(scene.cloud, self.config, scene.units_per_metre)
        return _nearest(self.scaled(found), self.centre)[found.inverse]

    def write(self, path: Path) -> None:
        """Stores the centres, whole or not at all. Raises OutputError."""
        from safetensors.torch import save

        tensors = {"centre": self.centre, "mean": self.mean, "deviation": self.deviation}
        notes = {
            "format": FORMAT,
            "digest": self.digest,
            "widths": json.dumps(dict(self.widths)),
            "config": self.config.model_dump_json(),
        }
        write_bytes(path, save({name: one.contiguous() for name, one in tensors.items()}, notes))

    @staticmethod
    def read(path: Path) -> Clustering | None:
        """Stored centres; None where the file is missing, damaged or of another version."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                notes = file.metadata() or {}
                centre, mean, deviation = (file.get_tensor(name) for name in ("centre", "mean", "deviation"))
            widths = json.loads(notes["widths"])
            config = ClustersConfig.model_validate_json(notes["config"])
            if notes["format"] != FORMAT or sum(widths.values()) != centre.shape[1] or len(centre) == 0:
                return None
            return Clustering(centre, mean, deviation, widths, config, notes["digest"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None


@dataclass(frozen=True)
class ClusterPoints:
    """Where the clusters of one scene are: one point for each fine cell, and the cluster there."""

    points: NearestPoints
    """In the frame of the scene, with the reach of a cluster."""
    cluster: Int[Tensor, " point"]

    @staticmethod
    def of(scene: Scene, clustering: Clustering) -> ClusterPoints:
        """Of a scene that was not moved; no points, no clusters."""
        cloud, reach = scene.cloud, clustering.config.reach * scene.units_per_metre
        if len(cloud) == 0:
            return ClusterPoints(NearestPoints.of(cloud.coord, reach), torch.zeros(0, dtype=torch.int32))
        cluster = clustering.of_points(scene)
        thinned = voxelise(cloud.coord, reach / 2).index
        return ClusterPoints(NearestPoints.of(cloud.coord[thinned], reach), cluster[thinned].to(torch.int32))

    @property
    def n_bytes(self) -> int:
        """Memory, about."""
        return 100 * len(self.cluster) + 1000

    def at(self, points: Float[Tensor, "query 3"]) -> Int[Tensor, " query"]:
        """Cluster of the point nearest to each place, -1 where none is within reach."""
        found = torch.full((len(points),), -1)
        row = self.points.rows(points)
        near = row >= 0
        found[near] = self.cluster[row[near]].long()
        return found


def digest_of(config: ClustersConfig, scenes: Sequence[str]) -> str:
    """Equal for two runs with the same settings on scenes of the same names."""
    content = json.dumps([FORMAT, config.model_dump(mode="json"), list(scenes)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class ClusterFit:
    """Collects cells of training scenes, a bounded number of each, and finds the centres."""

    def __init__(self, config: ClustersConfig, n_scenes: int) -> None:
        """`n_scenes`: how many will be added."""
        self.config = config
        self._per_scene = max(1, -(-config.sample_cells // max(n_scenes, 1)))
        self._samples: list[CellStatistics] = []

    def add(self, scene: Scene) -> None:
        """Random cells of a scene, the same for the same name; nothing of a scene without points."""
        if len(scene.cloud) == 0:
            return
        found = cell_statistics(scene.cloud, self.config, scene.units_per_metre)
        generator = make_generator("clusters", self.config.seed, scene.name)
        chosen = torch.randperm(len(found), generator=generator)[: self._per_scene]
        parts = {group: values[chosen] for group, values in found.parts.items()}
        self._samples.append(CellStatistics(parts, torch.arange(len(chosen))))

    @property
    def left_out(self) -> tuple[Group, ...]:
        """Statistics that most scenes lack. Of the others, a scene that lacks one counts as average."""
        counts = {group: sum(group in one.parts for one in self._samples) for group in GROUPS}
        return tuple(group for group in GROUPS if 2 * counts[group] < len(self._samples))

    @property
    def n_scenes(self) -> int:
        """Scenes that have points."""
        return len(self._samples)

    @property
    def n_cells(self) -> int:
        """Cells that were chosen."""
        return sum(map(len, self._samples))

    def fit(self, digest: str) -> Clustering:
        """The centres. Raises SceneError where there are fewer cells than clusters."""
        config = self.config
        if not self.n_cells:
            raise SceneError("no training scene has points to find clusters in", fix="ponder prepare --help")
        if self.n_cells < config.n_clusters:
            raise SceneError(
                f"the training scenes have {self.n_cells} cells of {config.cell:g} m, too few for "
                f"{config.n_clusters} clusters",
                fix=f"--set data.clusters.n_clusters={max(2, self.n_cells // 10)}",
            )
        widths: dict[Group, int] = {}
        means: list[Tensor] = []
        deviations: list[Tensor] = []
        for group in GROUPS:
            if group not in self.left_out:
                rows = torch.cat([one.parts[group] for one in self._samples if group in one.parts]).double()
                widths[group] = rows.shape[1]
                means.append(rows.mean(0))
                deviations.append(rows.std(0, correction=0) + 1e-6)
        mean, deviation = torch.cat(means).float(), torch.cat(deviations).float()
        unfitted = Clustering(torch.zeros(0, len(mean)), mean, deviation, widths, config, digest)
        every = torch.cat([unfitted.scaled(one) for one in self._samples])
        return replace(
            unfitted, centre=k_means(every, config.n_clusters, make_generator("k-means", config.seed))
        )


def k_means(
    values: Float[Tensor, "row n"], n_clusters: int, generator: torch.Generator
) -> Float[Tensor, "cluster n"]:
    """Lloyd's algorithm from a k-means++ start: the same centres for the same rows and generator.

    A cluster that loses its rows starts again at the row that is farthest from its own centre.
    """
    centre = _spread_start(values, n_clusters, generator)
    before = None
    for _ in range(ROUNDS):
        square, cluster = _square_distances(values, centre).min(dim=1)
        if before is not None and torch.equal(cluster, before):
            break
        before = cluster
        counts = torch.bincount(cluster, minlength=n_clusters)
        sums = values.new_zeros(n_clusters, values.shape[1], dtype=torch.float64)
        sums.index_add_(0, cluster, values.double())
        centre = (sums / counts.clamp(min=1)[:, None]).to(values.dtype)
        empty = torch.nonzero(counts == 0)[:, 0]
        if len(empty):
            centre[empty] = values[square.argsort(descending=True, stable=True)[: len(empty)]]
    return centre


def _spread_start(values: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each further centre is a row, drawn by its squared distance to the nearest so far."""
    chosen = int(torch.randint(len(values), (), generator=generator))
    centres = [values[chosen]]
    square = (values - centres[0]).square().sum(1).double()
    for _ in range(1, n_clusters):
        total = square.cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        chosen = min(int(torch.searchsorted(total, draw)), len(values) - 1)
        centres.append(values[chosen])
        square = torch.minimum(square, (values - centres[-1]).square().sum(1).double())
    return torch.stack(centres)


def _square_distances(values: Tensor, centre: Tensor) -> Tensor:
    return (values.square().sum(1)[:, None] - 2.0 * values @ centre.T + centre.square().sum(1)).clamp(min=0)


def _nearest(values: Tensor, centre: Tensor) -> Int[Tensor, " row"]:
    return _square_distances(values, centre).argmin(dim=1)
