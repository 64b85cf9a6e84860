"""From an augmented scene to what a model receives: voxels, features, labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.scenes.augment_geometry import centre_shift_matrix
from ponderv2.scenes.batch import SceneBatch
from ponderv2.scenes.config import PointDataConfig, SphereCropConfig
from ponderv2.scenes.crops import sphere_crop
from ponderv2.scenes.features import point_features
from ponderv2.scenes.scene import Scene
from ponderv2.scenes.voxelise import Voxelisation, offset_in_voxel, voxelise


@dataclass(frozen=True)
class Assembled:
    """A scene as the model sees it, and the way back to its points."""

    batch: SceneBatch
    scene: Scene
    """One point per voxel, in the order of the batch; cameras in the frame of the batch."""
    voxels: Voxelisation
    """Of the points before cropping and shuffling."""
    shift: Float[Tensor, "4 4"]
    """The last shift, from the frame of the voxels to that of the batch."""


def assemble(
    scene: Scene,
    config: PointDataConfig,
    condition: str,
    label_field: str,
    generator: torch.Generator | None = None,
    sphere: SphereCropConfig | None = None,
) -> Assembled:
    """Voxelise, crop, centre in x and y, shuffle.

    Without a generator nothing is random: the first point of each voxel, neither crop nor shuffle.
    """
    labelled = scene.cloud.labels.get("labelled")
    preferred = None if labelled is None else labelled > 0
    voxels = voxelise(scene.cloud.coord, config.voxel.size, config.voxel.order, generator, preferred)
    kept = torch.arange(len(voxels.index))
    if generator is not None and sphere is not None:
        kept = sphere_crop(scene.cloud.take(voxels.index), sphere, generator)
    if generator is not None and config.shuffle:
        kept = kept[torch.randperm(len(kept), generator=generator)]
    return _finish(scene, voxels, kept, config, (condition, label_field))


def batch_of_points(
    scene: Scene,
    index: Int[Tensor, " voxel"],
    cells: tuple[Int[Tensor, "voxel 3"], Float[Tensor, "3"]],
    config: PointDataConfig,
    source: tuple[str, str],
) -> tuple[SceneBatch, Scene, Float[Tensor, "4 4"]]:
    """The chosen points, centred in x and y: as a batch, as a scene, and the shift between the two frames.

    `cells` are the voxels of the points and the corner of voxel (0, 0, 0) in the frame of the scene; `source`
    is the condition (name of the dataset) and the name of the label field.
    """
    (grid_coord, lower), (condition, label_field) = cells, source
    offset = offset_in_voxel(scene.cloud.coord[index], config.voxel.size)
    chosen = replace(scene, cloud=scene.cloud.take(index))
    shift = centre_shift_matrix(chosen.cloud.coord, apply_z=False)
    chosen = chosen.moved(shift)
    unlabelled = torch.full((len(index),), -1)
    batch = SceneBatch(
        coord=chosen.cloud.coord,
        grid_coord=grid_coord,
        feature=point_features(chosen.cloud, config.features, offset),
        offset=torch.tensor([len(index)]),
        segment=chosen.cloud.labels.get(label_field, unlabelled).long(),
        units_per_metre=torch.tensor([scene.units_per_metre], dtype=torch.float32),
        condition=condition,
        names=(scene.name,),
        instance=chosen.cloud.labels.get("instance", unlabelled).long(),
        origin=(lower.double() + shift[:3, 3])[None],
    )
    return batch, chosen, shift


def _finish(
    scene: Scene,
    voxels: Voxelisation,
    kept: Int[Tensor, " kept"],
    config: PointDataConfig,
    source: tuple[str, str],
) -> Assembled:
    cells = voxels.grid_coord[kept], voxels.lower
    batch, chosen, shift = batch_of_points(scene, voxels.index[kept], cells, config, source)
    return Assembled(batch, chosen, voxels, shift)
