"""From an augmented scene to what a model receives: voxels, features, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.data.augmentation import centre_shift_matrix
from ponderv2.data.config import (
    FEATURE_CHANNELS,
    FeatureName,
    PointDataConfig,
    PointRangeConfig,
    SphereCropConfig,
)
from ponderv2.data.crops import sphere_crop
from ponderv2.data.voxelise import Voxelisation, offset_in_voxel, voxelise
from ponderv2.errors import SceneError
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.origin import far_outliers
from ponderv2.scenes.scene import PointCloud, Scene


def normalised_color(color: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """0..255 to -1..1."""
    return color / 127.5 - 1.0


def point_features(
    cloud: PointCloud,
    names: Sequence[FeatureName],
    offset: Float[Tensor, "point 3"],
    fields: Sequence[str] = (),
    scales: Mapping[str, float] = {},
) -> Float[Tensor, "point channel"]:
    """The named features of every point and, after them, the named fields of the data set, scaled.

    `offset` is the position within the own voxel (-0.5..0.5): the voxels were made before the last shift.

    Raises:
        SceneError: the points have no colours, normals or field of that name.
    """
    if len(cloud) == 0:
        return cloud.coord.new_zeros(0, sum(FEATURE_CHANNELS[name] for name in names) + len(fields))
    parts = [_feature(cloud, name, offset) for name in names] + [
        _field(cloud, name) * scales[name] if name in scales else _field(cloud, name) for name in fields
    ]
    return torch.cat(parts, dim=1)


def _feature(
    cloud: PointCloud, name: FeatureName, offset: Float[Tensor, "point 3"]
) -> Float[Tensor, "point part"]:
    match name:
        case "color":
            return normalised_color(_known(cloud, cloud.color, "color"))
        case "normal":
            return _known(cloud, cloud.normal, "normal")
        case "coord":
            return cloud.coord
        case "height":
            return cloud.coord[:, 2:]
        case "offset":
            return 2.0 * offset
        case "ones":
            return torch.ones_like(cloud.coord[:, :1])


def _field(cloud: PointCloud, name: str) -> Float[Tensor, "point part"]:
    values = cloud.fields.get(name)
    if values is None:
        known = ", ".join(cloud.fields) or "(none)"
        raise SceneError(f"the points have no field '{name}'", fix=f"set data.fields to some of: {known}")
    return values.reshape(len(cloud), -1).to(cloud.coord.dtype)


def _known(cloud: PointCloud, values: Tensor | None, name: str) -> Tensor:
    if values is None:
        there = [one for one in ("color", "normal") if one in cloud.arrays]
        raise SceneError(
            f"the points have no {name}",
            fix=f"set data.features to some of: {', '.join([*there, 'coord', 'height', 'offset', 'ones'])}",
        )
    return values


def with_near_points(scene: Scene) -> Scene:
    """The scene with points far from all others moved to their nearest other point.

    They would stretch the box of the scene. The order of the points stays: each gets a prediction.
    """
    if len(scene.cloud) == 0:
        return scene
    coord = scene.cloud.coord.numpy()
    far = far_outliers(coord)
    if not far.any():
        return scene
    from scipy.spatial import KDTree

    moved = coord.copy()
    moved[far] = coord[~far][np.asarray(KDTree(coord[~far]).query(coord[far])[1])]
    return replace(scene, cloud=replace(scene.cloud, coord=torch.from_numpy(moved)))


def whole_scene_shift(coord: Float[Tensor, "point 3"], config: PointDataConfig) -> Float[Tensor, "4 4"]:
    """What is done to a scene that is not augmented: centred, its lowest point at z = 0, or left in place."""
    if not config.centred:
        return torch.eye(4, dtype=torch.float64)
    return centre_shift_matrix(coord, apply_z=True)


def clipped(scene: Scene, config: PointDataConfig) -> Scene:
    """The scene with points outside the box of the settings moved to its border."""
    if config.clip is None or len(scene.cloud) == 0:
        return scene
    coord = scene.cloud.coord
    lower, upper = coord.new_tensor(config.clip.lower), coord.new_tensor(config.clip.upper)
    inside = torch.minimum(torch.maximum(coord, lower), upper)
    return replace(scene, cloud=replace(scene.cloud, coord=inside))


def in_range(scene: Scene, config: PointDataConfig) -> Scene:
    """The scene with the points strictly inside the range of the settings, and the boxes whose centre is.

    Raises as `inside_range`.
    """
    inside = inside_range(scene, config)
    if scene.boxes is not None and config.range is not None:
        scene = replace(scene, boxes=scene.boxes.take(_within(scene.boxes.center, config.range)))
    return scene if bool(inside.all()) else scene.take(inside)


def _within(position: Float[Tensor, "point 3"], limits: PointRangeConfig) -> Bool[Tensor, " point"]:
    lower, upper = position.new_tensor(limits.lower), position.new_tensor(limits.upper)
    return ((position > lower) & (position < upper)).all(dim=1)


def inside_range(scene: Scene, config: PointDataConfig) -> Bool[Tensor, " point"]:
    """Which points lie strictly inside the range of the settings; all where there is none.

    Raises SceneError where no point is: the range is then not in the frame of the scene.
    """
    coord, limits = scene.cloud.coord, config.range
    if limits is None or len(coord) == 0:
        return torch.ones(len(coord), dtype=torch.bool)
    inside = _within(coord, limits)
    if not bool(inside.any()):
        raise SceneError(
            f"no point of scene '{scene.name}' lies in the range {limits.lower} to {limits.upper}",
            fix="set data.range to one around the sensor, in the frame of the scene",
        )
    return inside


@dataclass(frozen=True)
class Preprocessed:
    """A scene as the model sees it, and the way back to its points."""

    batch: Batch
    scene: Scene
    """One point per voxel, in the order of the batch; everything in the frame of the batch."""
    voxels: Voxelisation
    """Of the points before cropping and shuffling."""
    shift: Float[Tensor, "4 4"]
    """The last shift, from the frame of the voxels to that of the batch."""


def preprocess(
    scene: Scene,
    config: PointDataConfig,
    condition: str,
    label_field: str,
    generator: torch.Generator | None = None,
    sphere: SphereCropConfig | None = None,
) -> Preprocessed:
    """Voxelise, crop, centre in x and y (unless the settings say no), shuffle.

    Without a generator nothing is random: the first point of each voxel, neither crop nor shuffle. A scene
    without points, of images alone, stays where it is.
    """
    labelled = scene.cloud.labels.get("labelled")
    preferred = None if labelled is None else labelled > 0
    if len(scene.cloud) == 0:
        voxels = Voxelisation.empty()
        return _finish(scene, voxels, voxels.index, config, (condition, label_field))
    voxels = voxelise(scene.cloud.coord, config.voxel.size, config.voxel.order, generator, preferred)
    kept = torch.arange(len(voxels.index))
    if generator is not None and sphere is not None:
        kept, region = sphere_crop(scene.cloud.take(voxels.index), sphere, generator)
        if region is not None and scene.boxes is not None:
            scene = replace(scene, boxes=scene.boxes.take(region.contains(scene.boxes.center)))
    if generator is not None and config.shuffle:
        kept = kept[torch.randperm(len(kept), generator=generator)]
    return _finish(scene, voxels, kept, config, (condition, label_field))


def batch_of_points(
    scene: Scene,
    index: Int[Tensor, " voxel"],
    cells: tuple[Int[Tensor, "voxel 3"], Float[Tensor, "3"]],
    config: PointDataConfig,
    source: tuple[str, str],
) -> tuple[Batch, Scene, Float[Tensor, "4 4"]]:
    """The chosen points as a batch, as a scene, and the shift between the two frames.

    They are centred in x and y, unless the settings leave them in the frame of the scene.

    `cells` are the voxels of the points and the corner of voxel (0, 0, 0) in the frame of the scene; `source`
    is the condition (name of the dataset) and the name of the label field.
    """
    (grid_coord, lower), (condition, label_field) = cells, source
    offset = offset_in_voxel(scene.cloud.coord[index], config.voxel.size)
    chosen = scene.take(index)
    shift = torch.eye(4, dtype=torch.float64)
    if config.centred:
        shift = centre_shift_matrix(chosen.cloud.coord, apply_z=False)
        chosen = chosen.moved(shift)
    unlabelled = torch.full((len(index),), -1)
    batch = Batch(
        coord=chosen.cloud.coord,
        grid_coord=grid_coord,
        feature=point_features(chosen.cloud, config.features, offset, config.fields, config.scales),
        offset=torch.tensor([len(index)]),
        segment=chosen.cloud.labels.get(label_field, unlabelled).long(),
        units_per_metre=torch.tensor([scene.units_per_metre], dtype=torch.float32),
        condition=condition,
        names=(scene.name,),
        instance=chosen.cloud.labels.get("instance", unlabelled).long(),
        origin=(lower.double() + shift[:3, 3])[None],
        fields=chosen.cloud.fields,
        boxes=chosen.boxes,
        box_scene=None if chosen.boxes is None else torch.zeros(len(chosen.boxes), dtype=torch.long),
    )
    return batch, chosen, shift


def _finish(
    scene: Scene,
    voxels: Voxelisation,
    kept: Int[Tensor, " kept"],
    config: PointDataConfig,
    source: tuple[str, str],
) -> Preprocessed:
    cells = voxels.grid_coord[kept], voxels.lower
    batch, chosen, shift = batch_of_points(scene, voxels.index[kept], cells, config, source)
    return Preprocessed(batch, chosen, voxels, shift)
