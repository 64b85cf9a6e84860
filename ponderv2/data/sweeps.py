"""Several sweeps of a LiDAR as one cloud: moved into the frame of the scene, each point with its age.

The sensors of sweeps move with the scene, so that this may be done before an augmentation or after it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.data.scan_config import SweepsConfig
from ponderv2.io.colors import NO_COLOR
from ponderv2.scenes.scene import PointCloud, Scene, Sweep


def accumulated(scene: Scene, config: SweepsConfig, generator: torch.Generator | None = None) -> Scene:
    """The scene with the points of earlier sweeps.

    Points get a field `time`: seconds before the scene, 0 for its own. Fields that sweeps lack are dropped;
    labels of their points are -1, normals 0. Moving objects leave a trail. Later sweeps are never taken.

    Raises:
        SceneError: a sweep cannot be read.
        ValueError: sweeps are to be drawn at random, and there is no generator.
    """
    own = scene.cloud
    if config.close_in_scene:
        own = own.take(~_is_close(own.coord, own_sensor(scene), config.close))
    clouds = [_aged(own, 0.0)]
    for sweep in chosen_sweeps(scene, config, generator):
        measured = sweep.read()
        near = (measured.coord[:, :2].abs() < config.close).all(dim=1)
        moved = measured.take(~near).moved(torch.linalg.inv(sweep.world_to_sensor.double()))
        clouds.append(_aged(moved, -(sweep.time or 0.0)))
    return replace(scene, cloud=_joined(clouds))


def with_sweeps(scene: Scene, config: SweepsConfig | None, generator: torch.Generator | None = None) -> Scene:
    """`accumulated`, where that is configured. Without a generator the latest sweeps are taken."""
    if config is None:
        return scene
    if generator is None:
        config = config.model_copy(update={"choice": "latest"})
    return accumulated(scene, config, generator)


def with_sweeps_behind(scene: Scene, config: SweepsConfig | None) -> Scene:
    """The scene with the latest sweeps behind its own points, none of which is removed: each has a result."""
    if config is None:
        return scene
    return with_sweeps(scene, config.model_copy(update={"close_in_scene": False}))


def chosen_sweeps(scene: Scene, config: SweepsConfig, generator: torch.Generator | None) -> list[Sweep]:
    """Earlier sweeps, the latest first."""
    earlier = [one for one in scene.sweeps if one.time is not None and one.time < 0.0]
    earlier.sort(key=lambda one: one.time or 0.0, reverse=True)
    count = config.n_sweeps - 1
    if config.choice == "latest" or len(earlier) <= count:
        return earlier[:count]
    if generator is None:
        raise ValueError("sweeps are to be drawn at random, got no generator")
    drawn = torch.randperm(len(earlier), generator=generator)[:count].sort().values
    return [earlier[index] for index in drawn.tolist()]


def own_sensor(scene: Scene) -> Float[Tensor, "4 4"]:
    """From the scene into the frame of the sensor that measured its points."""
    own = next((one for one in scene.sweeps if one.time == 0.0), None)
    return torch.eye(4) if own is None else own.world_to_sensor


def _is_close(
    coord: Float[Tensor, "point 3"], world_to_sensor: Float[Tensor, "4 4"], close: float
) -> Bool[Tensor, " point"]:
    in_sensor = PointCloud(coord).moved(world_to_sensor).coord
    return (in_sensor[:, :2].abs() < close).all(dim=1)


def _aged(cloud: PointCloud, seconds: float) -> PointCloud:
    age = torch.full((len(cloud),), seconds, dtype=torch.float32)
    return replace(cloud, fields={**cloud.fields, "time": age})


def _joined(clouds: list[PointCloud]) -> PointCloud:
    """One after the other; what the first has of colours, normals and labels is filled up."""
    first, n_more = clouds[0], sum(map(len, clouds[1:]))
    coord = torch.cat([one.coord.to(first.coord.dtype) for one in clouds])
    common = [name for name in first.fields if all(name in one.fields for one in clouds)]
    return replace(
        first,
        coord=coord,
        color=None if first.color is None else _filled(first.color, n_more, NO_COLOR),
        normal=None if first.normal is None else _filled(first.normal, n_more, 0.0),
        labels={name: _filled(values, n_more, -1) for name, values in first.labels.items()},
        fields={
            name: torch.cat([one.fields[name].to(first.fields[name].dtype) for one in clouds])
            for name in common
        },
    )


def _filled(values: Tensor, count: int, value: float | int) -> Tensor:
    return torch.cat([values, values.new_full((count, *values.shape[1:]), value)])
