"""A key frame of nuScenes as a scene: in the frame of its LiDAR, each sensor with its pose at its own time.

A pose leads from the sensor over the vehicle at the time of the measurement to the world, and back over the
vehicle at the time of the key frame to its LiDAR: the motion between two measurements is part of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import KeyFrame, camera_fault, inverse, present_sweeps, usable_boxes
from ponderv2.datasets.lidar_files import FloatRows, lookup, read_labels, usable_of_key
from ponderv2.datasets.nuscenes.classes import CATEGORIES, detection_class, segment_class
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.index import Annotations, Measurement, NuscenesIndex, Sample, rigid
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.io.images import image_size
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

LIDAR = "LIDAR_TOP"
SCANS = FloatRows(("intensity", "ring"), 1.0 / 255.0)


def read_key_frame(
    root: Path, index: NuscenesIndex, sample: Sample, config: NuscenesConfig, labels: bool = True
) -> KeyFrame:
    """One key frame; images and sweeps are read when asked for, its own points now.

    Cameras and sweeps whose file is missing are left out and noted. Raises SceneError: the points of the key
    frame are missing, damaged or none, or its poses are not finite.
    """
    data = index.key_data(sample)
    if LIDAR not in data:
        raise SceneError(f"{sample.name}: the tables name no scan of {LIDAR} for this key frame")
    key = data[LIDAR]
    if not np.isfinite(key.sensor_to_global).all():
        raise SceneError(f"{sample.name}: the pose of {LIDAR} is not finite")
    global_to_scene = np.linalg.inv(key.sensor_to_global)
    notes: list[str] = []
    cloud = _cloud(root, index, key, labels, notes)
    beside = index.before(key, sample, max(config.sweeps - 1, 0)) + index.after(key, sample, config.following)
    sweeps = [_sweep(root, key, one, global_to_scene) for one in ([key] if config.sweeps else []) + beside]
    frames = [
        _frame(root, key, data[name], global_to_scene, notes) for name in config.cameras if name in data
    ]
    absent = [name for name in config.cameras if name not in data]
    if absent and index.has_cameras:
        notes.append(f"the tables name no image of {', '.join(absent)}")
    boxes = None
    if labels:
        annotations = index.annotations(sample)
        boxes = boxes_of(annotations, global_to_scene, notes)
        if not len(annotations) and index.version.endswith("test"):
            boxes = None
    scene = Scene(
        name=sample.name,
        cloud=cloud,
        frames=tuple(one for one in frames if one is not None),
        sweeps=present_sweeps(sweeps, notes),
        boxes=boxes,
    )
    return KeyFrame(scene, tuple(notes))


def _cloud(root: Path, index: NuscenesIndex, key: Measurement, labels: bool, notes: list[str]) -> PointCloud:
    path = root / key.filename
    rows = SCANS.rows(path)
    good = usable_of_key(rows, path, notes)
    cloud = SCANS.cloud(rows[good])
    file = index.label_file(key.token) if labels else None
    if file is None:
        return cloud
    if not (root / file).exists():
        notes.append(f"no labels {file}")
        return cloud
    stored = read_labels(root / file, "u1", len(rows))
    classes = lookup(
        {number: segment_class(name) for number, name in (index.label_categories or STANDARD).items()}, 256
    )
    segment = torch.from_numpy(classes[stored[good]])
    return PointCloud(cloud.coord, labels={"segment": segment}, fields=cloud.fields)


STANDARD = dict(enumerate(CATEGORIES))
"""Numbers of the categories where the table lacks them, as that of the first archives does."""


def _sweep(root: Path, key: Measurement, one: Measurement, global_to_scene: Float64[ndarray, "4 4"]) -> Sweep:
    return Sweep(
        id=one.token,
        sensor=one.channel,
        world_to_sensor=inverse(global_to_scene @ one.sensor_to_global),
        path=root / one.filename,
        time=1e-6 * (one.timestamp - key.timestamp),
        files=SCANS,
    )


def _frame(
    root: Path, key: Measurement, one: Measurement, global_to_scene: Float64[ndarray, "4 4"], notes: list[str]
) -> Frame | None:
    path, (width, height) = root / one.filename, one.size
    if not one.size[0] and path.is_file():  # of infos, which hold no sizes
        width, height = image_size(path)
    why = camera_fault(one.intrinsics, width, height) if path.is_file() or one.size[0] else ""
    if not why and not np.isfinite(one.sensor_to_global).all():
        why = "its pose is not finite"
    if not why and not path.is_file():
        why = f"there is no file {one.filename}"
    if why or one.intrinsics is None:
        notes.append(f"{one.channel} is left out: {why}")
        return None
    camera = Camera(
        intrinsics=torch.from_numpy(one.intrinsics).float(),
        world_to_camera=inverse(global_to_scene @ one.sensor_to_global),
        width=width,
        height=height,
    )
    return Frame(
        id=f"{one.channel}_{one.timestamp}",
        camera=camera,
        color_path=path,
        time=1e-6 * (one.timestamp - key.timestamp),
        sensor=one.channel,
    )


def boxes_of(
    annotations: Annotations,
    global_to_scene: Float64[ndarray, "4 4"],
    notes: list[str],
    dtype: torch.dtype = torch.float32,
) -> Boxes:
    """Boxes in the frame of the scene: sizes as length, width, height; yaw of the heading seen from above.

    Boxes that are not finite are left out and noted.
    """
    turn = global_to_scene[:3, :3]
    heading = np.array([rigid((0.0, 0.0, 0.0), one)[:3, 0] for one in annotations.rotation]).reshape(-1, 3)
    heading = heading @ turn.T
    center = annotations.center @ turn.T + global_to_scene[:3, 3]
    numbers = np.concatenate([center, annotations.size, heading], axis=1)
    good = usable_boxes(numbers, annotations.size, notes)
    names = annotations.category
    fields = {
        "attribute": annotations.attribute,
        "n_lidar": annotations.n_lidar,
        "n_radar": annotations.n_radar,
        "visibility": annotations.visibility,
        "source_category": tuple(CATEGORIES.index(one) if one in CATEGORIES else -1 for one in names),
    }
    found = Boxes(
        center=torch.from_numpy(center).to(dtype),
        size=torch.from_numpy(annotations.size[:, [1, 0, 2]]).to(dtype),
        yaw=torch.from_numpy(np.arctan2(heading[:, 1], heading[:, 0])).to(dtype),
        velocity=torch.from_numpy(annotations.velocity @ turn.T).to(dtype),
        category=torch.tensor([detection_class(one) for one in names], dtype=torch.long),
        instance=torch.tensor(annotations.instance, dtype=torch.long),
        fields={name: torch.tensor(values, dtype=torch.long) for name, values in fields.items()},
    )
    return found.take(torch.from_numpy(good))
