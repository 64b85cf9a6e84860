"""Small drives in the format of nuScenes: a turning vehicle past fixed landmarks and steadily moving objects.

What every reading must give is known in closed form: each scan holds the same landmarks of the world.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

START = 1_532_402_927_000_000
"""Microseconds."""
SWEEP, SAMPLE = 50_000, 500_000
CAMERAS = {"CAM_FRONT": -0.035, "CAM_BACK": -0.010}
"""Seconds between their images and the scan of a key frame."""
SIZE = (64, 36)
INTRINSICS = [[50.0, 0.0, 31.5], [0.0, 50.0, 17.5], [0.0, 0.0, 1.0]]
LANDMARKS = 200


def ego_pose(microseconds: int) -> np.ndarray:
    """Of the vehicle in the world: along a curve, far from the origin."""
    seconds = 1e-6 * (microseconds - START)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zyx", [0.3 + 0.4 * seconds, 0.01, -0.02]).as_matrix()
    pose[:3, 3] = (400.0 + 8.0 * seconds, 1180.0 + 3.0 * seconds**2, 0.0)
    return pose


def sensor_pose(channel: str) -> np.ndarray:
    """Of a sensor in the frame of the vehicle."""
    pose = np.eye(4)
    if channel == "LIDAR_TOP":
        pose[:3, :3] = Rotation.from_euler("z", -90, degrees=True).as_matrix()
        pose[:3, 3] = (0.94, 0.0, 1.84)
    else:
        forward = Rotation.from_euler("z", 0 if channel == "CAM_FRONT" else 180, degrees=True)
        optical = Rotation.from_matrix(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]))
        pose[:3, :3] = (forward * optical).as_matrix()
        pose[:3, 3] = (1.7, 0.0, 1.5) if channel == "CAM_FRONT" else (0.0, 0.0, 1.5)
    return pose


def as_tables(pose: np.ndarray) -> dict[str, Any]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return {"translation": pose[:3, 3].tolist(), "rotation": [w, x, y, z]}


@dataclass
class Track:
    """A car in steady motion, annotated in some samples."""

    position: np.ndarray
    velocity: np.ndarray
    yaw: float
    samples: tuple[int, ...]
    category: str = "vehicle.car"

    def at(self, microseconds: int) -> np.ndarray:
        return self.position + self.velocity * 1e-6 * (microseconds - START)


@dataclass
class Drives:
    """Tables in the making."""

    root: Path
    version: str = "v1.0-mini"
    n_samples: int = 6
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tracks: list[Track] = field(default_factory=list)
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    count: int = 0

    def token(self) -> str:
        self.count += 1
        return f"{self.count * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"

    def add(self, table: str, **values: Any) -> str:
        token = values.pop("token", None) or self.token()
        self.tables.setdefault(table, []).append({"token": token, **values})
        return token


def write_drives(root: Path, scenes: tuple[str, ...] = ("scene-0061", "scene-0103"), **rest: Any) -> Drives:
    """Tables and files of small drives."""
    made = Drives(root, **rest)
    rng = np.random.default_rng(0)
    made.landmarks = np.array([400.0, 1180.0, 1.0]) + rng.uniform(-20, 20, (LANDMARKS, 3)) * (1, 1, 0.1)
    everything = tuple(range(made.n_samples))
    made.tracks = [
        Track(np.array([410.0, 1185.0, 0.8]), np.array([5.0, -1.0, 0.0]), 0.7, everything),
        Track(
            np.array([395.0, 1175.0, 1.0]),
            np.array([0.0, 2.0, 0.1]),
            -2.0,
            everything[1:3],
            "vehicle.bus.rigid",
        ),
        Track(
            np.array([402.0, 1190.0, 0.9]),
            np.array([1.0, 1.0, 0.0]),
            3.1,
            (0, made.n_samples - 1),
            "human.pedestrian.adult",
        ),
        Track(np.array([405.0, 1170.0, 0.5]), np.zeros(3), 0.0, (2,), "static_object.bicycle_rack"),
    ]
    for table in ("lidarseg", "sample_annotation", "instance"):
        made.tables[table] = []
    log = made.add("log", logfile="n000", vehicle="n000", date_captured="2018-07-24", location="somewhere")
    made.add("map", category="semantic_prior", filename="maps/none.png", log_tokens=[log])
    for level in range(1, 5):
        made.add("visibility", token=str(level), level=f"v{level}", description="")
    from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, CATEGORIES

    categories = {
        name: made.add("category", name=name, description="", index=index)
        for index, name in enumerate(CATEGORIES)
    }
    attributes = {name: made.add("attribute", name=name, description="") for name in ATTRIBUTES}
    sensors = {}
    for channel in ("LIDAR_TOP", *CAMERAS, "RADAR_FRONT"):
        modality = {"L": "lidar", "C": "camera", "R": "radar"}[channel[0]]
        sensor = made.add("sensor", channel=channel, modality=modality)
        sensors[channel] = made.add(
            "calibrated_sensor",
            sensor_token=sensor,
            camera_intrinsic=INTRINSICS if modality == "camera" else [],
            **as_tables(sensor_pose(channel)),
        )
    for number, name in enumerate(scenes):
        _write_scene(made, name, number * 100_000_000, log, sensors, categories, attributes)
    folder = root / made.version
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in made.tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return made


def _write_scene(
    made: Drives, name: str, later: int, log: str, sensors: Any, categories: Any, attributes: Any
) -> None:
    times = [START + SAMPLE * number for number in range(made.n_samples)]
    samples = [made.token() for _ in times]
    ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
    scene = made.add("scene", name=name, description="", log_token=log, nbr_samples=len(times), **ends)
    for one, when, before, after in zip(samples, times, ["", *samples[:-1]], [*samples[1:], ""], strict=True):
        made.add("sample", token=one, timestamp=when + later, prev=before, next=after, scene_token=scene)
    last = times[-1]
    scans = [START + SWEEP * i for i in range((last - START) // SWEEP + 1)]
    _measure(made, "LIDAR_TOP", sensors, scans, times, samples, later)
    for channel, lag in CAMERAS.items():
        _measure(made, channel, sensors, [one + round(1e6 * lag) for one in times], times, samples, later)
    _measure(made, "RADAR_FRONT", sensors, [one + 7 for one in times], times, samples, later)
    for track in made.tracks:
        tokens = [made.token() for _ in track.samples]
        instance = made.add(
            "instance", category_token=categories[track.category], nbr_annotations=len(tokens),
            first_annotation_token=tokens[0], last_annotation_token=tokens[-1],
        )  # fmt: skip
        for position, number in enumerate(track.samples):
            pose = np.eye(4)
            pose[:3, :3] = Rotation.from_euler("z", track.yaw).as_matrix()
            pose[:3, 3] = track.at(times[number])
            made.add(
                "sample_annotation",
                token=tokens[position],
                sample_token=samples[number],
                instance_token=instance,
                visibility_token="3",
                attribute_tokens=[attributes["vehicle.moving"]] if track.category == "vehicle.car" else [],
                size=[1.9, 4.5, 1.6],
                prev=tokens[position - 1] if position else "",
                next=tokens[position + 1] if position + 1 < len(tokens) else "",
                num_lidar_pts=number + 3,
                num_radar_pts=0,
                **as_tables(pose),
            )


def _measure(
    made: Drives,
    channel: str,
    sensors: Any,
    moments: list[int],
    times: list[int],
    samples: list[str],
    later: int,
) -> None:
    tokens = [made.token() for _ in moments]
    for index, when in enumerate(moments):
        nearest = int(np.argmin([abs(when - one) for one in times]))
        is_key = abs(when - times[nearest]) < SWEEP
        nearest = nearest if is_key else next(i for i, one in enumerate(times) if one >= when)
        folder = f"{'samples' if is_key else 'sweeps'}/{channel}"
        ending = {"L": "pcd.bin", "C": "jpg", "R": "pcd"}[channel[0]]
        file = f"{folder}/n000__{channel}__{when + later}.{ending}"
        path = made.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if channel == "LIDAR_TOP":
            to_sensor = np.linalg.inv(ego_pose(when) @ sensor_pose(channel))
            points = made.landmarks @ to_sensor[:3, :3].T + to_sensor[:3, 3]
            more = np.stack([np.arange(LANDMARKS) % 256, np.arange(LANDMARKS) % 32], axis=1)
            np.concatenate([points, more], axis=1).astype("<f4").tofile(path)
        elif channel[0] == "C":
            Image.new("RGB", SIZE, (index % 256, 90, 120)).save(path)
        token, pose = tokens[index], made.token()
        made.add("ego_pose", token=pose, timestamp=when + later, **as_tables(ego_pose(when)))
        made.add(
            "sample_data",
            token=token,
            sample_token=samples[nearest],
            ego_pose_token=pose,
            calibrated_sensor_token=sensors[channel],
            timestamp=when + later,
            fileformat=ending.split(".")[0],
            is_key_frame=is_key,
            width=SIZE[0] if channel[0] == "C" else 0,
            height=SIZE[1] if channel[0] == "C" else 0,
            filename=file,
            prev=tokens[index - 1] if index else "",
            next=tokens[index + 1] if index + 1 < len(tokens) else "",
        )
        if channel == "LIDAR_TOP" and is_key:
            labels = f"lidarseg/{made.version}/{token}_lidarseg.bin"
            (made.root / labels).parent.mkdir(parents=True, exist_ok=True)
            (np.arange(LANDMARKS) % 32).astype("u1").tofile(made.root / labels)
            made.add("lidarseg", token=token, sample_data_token=token, filename=labels)
