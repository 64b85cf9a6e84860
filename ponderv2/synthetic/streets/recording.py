"""Drives along one street, writes what the sensors measure, and returns its records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponderv2.io.files import write_bytes
from ponderv2.io.images import encode_jpeg
from ponderv2.synthetic.streets.boxes import Annotation, annotate, tracked
from ponderv2.synthetic.streets.camera import StreetCamera, sense
from ponderv2.synthetic.streets.casting import StreetCaster
from ponderv2.synthetic.streets.classes import LIDAR
from ponderv2.synthetic.streets.config import StreetConfig
from ponderv2.synthetic.streets.lidar import Lidar, LidarSweep
from ponderv2.synthetic.streets.map_mask import draw_map
from ponderv2.synthetic.streets.names import VERSION, file_name
from ponderv2.synthetic.streets.rig import Rig, make_rig
from ponderv2.synthetic.streets.street import Street, make_street
from ponderv2.synthetic.streets.tables import SceneRecords, add_annotations, quaternion

KEY_STEP = 500_000
"""Between key frames, microseconds."""
SWEEP_STEP = 50_000
FIRST = 1_600_000_000_000_000
"""Time stamp of the first key frame of the first street, microseconds."""


@dataclass(frozen=True)
class SceneResult:
    """What was made of one street."""

    records: SceneRecords
    n_points: int
    """Of all key frames."""
    n_images: int
    n_boxes: int
    weather: str
    metres: float
    """That were driven."""


class Recorder:
    """One street with its sensors and records."""

    def __init__(self, index: int, name: str, config: StreetConfig, root: Path) -> None:
        rng = np.random.default_rng([config.seed, index])
        self.config, self.root, self.name = config, root, name
        self.street: Street = make_street(rng, config)
        self.rig: Rig = make_rig(rng, config)
        caster = StreetCaster(self.street)
        self.lidar = Lidar(caster, self.rig, config)
        self.camera = StreetCamera(caster, self.rig, config)
        self.records = SceneRecords(f"street/{config.seed}/{index}")
        self.log = f"street-{config.seed:04d}-{index:04d}"
        self.start = FIRST + index * 1_000_000_000
        self._noise_seed = int(rng.integers(2**31))

    def run(self) -> SceneResult:
        """Write everything but the tables. Raises OutputError."""
        self._headers()
        found: list[Annotation] = []
        n_points = n_images = 0
        last = (self.config.key_frames - 1) * KEY_STEP
        step = SWEEP_STEP if self.config.sweeps else KEY_STEP
        for stamp in range(0, last + 1, step):
            sweep, data = self._lidar(stamp)
            if stamp % KEY_STEP == 0:
                self._sample(stamp // KEY_STEP)
                n_points += len(sweep.coord)
                views, written = self._images(stamp)
                n_images += written
                found += annotate(
                    self.street, self.lidar, stamp // KEY_STEP, self._in_world(sweep, stamp), views
                )
                self._lidarseg(data, sweep)
        kept = tracked(found)
        add_annotations(self.records, kept, [actor.model.category for actor in self.street.actors])
        self.records.link()
        ego = self.street.ego
        driven = np.interp([0.0, last * 1e-6], ego.time, ego.way)
        metres = float(driven[1] - driven[0])
        return SceneResult(self.records, n_points, n_images, len(kept), self.street.light.name, metres)

    def _noise(self, channel: str, stamp: int) -> np.random.Generator:
        """Of one measurement, whatever was measured before."""
        return np.random.default_rng(
            [self._noise_seed, int.from_bytes(channel.encode(), "big"), self.start + stamp]
        )

    def _headers(self) -> None:
        records, config = self.records, self.config
        log = records.add(
            "log",
            {
                "token": records.token("log"),
                "logfile": self.log,
                "vehicle": "generated",
                "date_captured": "2020-09-13",
                "location": "generated",
            },
        )
        token = records.token("map")
        name = f"maps/{token}.png"
        write_bytes(self.root / name, draw_map(self.street.road))
        records.add(
            "map", {"token": token, "log_tokens": [log], "category": "semantic_prior", "filename": name}
        )
        records.add(
            "scene",
            {
                "token": records.token("scene"),
                "log_token": log,
                "nbr_samples": config.key_frames,
                "first_sample_token": records.token("sample", 0),
                "last_sample_token": records.token("sample", config.key_frames - 1),
                "name": self.name,
                "description": f"Generated street, {self.street.light.name}",
            },
        )
        self.sensors = {LIDAR: records.sensor(LIDAR, self.rig.lidar_to_ego, None)}
        for camera in self.rig.cameras:
            self.sensors[camera.channel] = records.sensor(camera.channel, camera.to_ego, camera.intrinsics)

    def _sample(self, number: int) -> None:
        self.records.add(
            "sample",
            {
                "token": self.records.token("sample", number),
                "timestamp": self.start + number * KEY_STEP,
                "scene_token": self.records.token("scene"),
            },
        )

    def _data(self, channel: str, stamp: int, key: int | None, content: bytes) -> str:
        """Write a file and its record. `key`: number of the key frame, None between them."""
        records, config = self.records, self.config
        is_lidar = channel == LIDAR
        following = -(-stamp // KEY_STEP) if key is None else key
        name = file_name("samples" if key is not None else "sweeps", self.log, channel, self.start + stamp)
        write_bytes(self.root / name, content)
        pose = self.street.ego.matrices(np.array(stamp * 1e-6))
        ego = records.add(
            "ego_pose",
            {
                "token": records.token("ego_pose", channel, stamp),
                "timestamp": self.start + stamp,
                "rotation": quaternion(pose[:3, :3]),
                "translation": [float(one) for one in pose[:3, 3]],
            },
        )
        return records.add(
            "sample_data",
            {
                "token": records.token("sample_data", channel, stamp),
                "sample_token": records.token("sample", min(following, config.key_frames - 1)),
                "ego_pose_token": ego,
                "calibrated_sensor_token": self.sensors[channel],
                "timestamp": self.start + stamp,
                "fileformat": "pcd" if is_lidar else "jpg",
                "is_key_frame": key is not None,
                "height": 0 if is_lidar else config.height,
                "width": 0 if is_lidar else config.width,
                "filename": name,
            },
        )

    def _lidar(self, stamp: int) -> tuple[LidarSweep, str]:
        sweep = self.lidar.sweep(self._noise(LIDAR, stamp), stamp * 1e-6)
        rows = np.column_stack([sweep.coord, sweep.intensity, sweep.ring]).astype("<f4")
        key = stamp // KEY_STEP if stamp % KEY_STEP == 0 else None
        return sweep, self._data(LIDAR, stamp, key, rows.tobytes())

    def _in_world(self, sweep: LidarSweep, stamp: int) -> np.ndarray:
        pose = self.lidar.pose(np.array(stamp * 1e-6))
        return sweep.coord.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]

    def _images(self, stamp: int) -> tuple[list, int]:
        """Of a key frame and those that follow it; views of the key frame alone are returned."""
        views, written = [], 0
        n_between = self.config.camera_rate // 2
        n_times = n_between if stamp < (self.config.key_frames - 1) * KEY_STEP else 1
        for part in range(n_times):
            later = stamp + part * KEY_STEP // n_between
            shadows = self.camera.shadows(later * 1e-6 - 0.025)
            for camera in self.rig.cameras:
                exposed = later - round(camera.before_end * 1e6)
                view = self.camera.render(camera, exposed * 1e-6, shadows)
                color = sense(self._noise(camera.channel, exposed), view, self.config.noise)
                jpeg = encode_jpeg(color, self.config.jpeg_quality)
                self._data(camera.channel, exposed, stamp // KEY_STEP if part == 0 else None, jpeg)
                written += 1
                if part == 0:
                    views.append(view)
        return views, written

    def _lidarseg(self, data: str, sweep: LidarSweep) -> None:
        name = f"lidarseg/{VERSION}/{data}_lidarseg.bin"
        write_bytes(self.root / name, sweep.label.astype(np.uint8).tobytes())
        self.records.add("lidarseg", {"token": data, "sample_data_token": data, "filename": name})
