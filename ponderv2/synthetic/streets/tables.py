"""The tables of nuScenes v1.0: records of one street, and the files of all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ponderv2.io.files import write_bytes
from ponderv2.synthetic.streets.boxes import Annotation
from ponderv2.synthetic.streets.classes import ATTRIBUTES, CAMERAS, LIDAR, LIDARSEG, VISIBILITY
from ponderv2.synthetic.streets.names import VERSION, token

Record = dict[str, Any]
OF_SCENES = (
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "instance",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "map",
    "lidarseg",
)
"""Tables whose records belong to one scene each; `category` and others are common."""


@dataclass
class SceneRecords:
    """The records of one scene while it is driven."""

    key: str
    """What makes its tokens unique."""
    tables: dict[str, list[Record]] = field(default_factory=lambda: {name: [] for name in OF_SCENES})

    def token(self, *parts: object) -> str:
        """Of a record of this scene."""
        return token(self.key, *parts)

    def add(self, table: str, record: Record) -> str:
        """Append a record; returns its token."""
        self.tables[table].append(record)
        return str(record["token"])

    def sensor(self, channel: str, to_ego: Float[np.ndarray, "4 4"], intrinsics: np.ndarray | None) -> str:
        """A sensor as it is mounted on the vehicle."""
        return self.add(
            "calibrated_sensor",
            {
                "token": self.token("calibrated_sensor", channel),
                "sensor_token": token("sensor", channel),
                "translation": [float(one) for one in to_ego[:3, 3]],
                "rotation": quaternion(to_ego[:3, :3]),
                "camera_intrinsic": [] if intrinsics is None else intrinsics.tolist(),
            },
        )

    def link(self) -> None:
        """Fill prev and next of what follows each other."""
        _chain(self.tables["sample"], lambda _: "")
        _chain(self.tables["sample_data"], lambda record: record["calibrated_sensor_token"])
        _chain(self.tables["sample_annotation"], lambda record: record["instance_token"])


def _chain(records: Sequence[Record], group: Any) -> None:
    last: dict[str, Record] = {}
    for record in records:
        before = last.get(group(record))
        record["prev"], record["next"] = "" if before is None else before["token"], ""
        if before is not None:
            before["next"] = record["token"]
        last[group(record)] = record


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> list[float]:
    """w, x, y, z with w >= 0."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = (float(one) for one in Rotation.from_matrix(rotation).as_quat())
    sign = -1.0 if w < 0 else 1.0
    return [sign * w, sign * x, sign * y, sign * z]


def add_annotations(records: SceneRecords, found: Sequence[Annotation], categories: Sequence[str]) -> None:
    """Instances and their boxes. `categories`: of the actors, by their numbers."""
    for actor in sorted({one.actor for one in found}):
        mine = sorted((one for one in found if one.actor == actor), key=lambda one: one.key_frame)
        tokens = [records.token("annotation", actor, one.key_frame) for one in mine]
        instance = records.add(
            "instance",
            {
                "token": records.token("instance", actor),
                "category_token": token("category", categories[actor]),
                "nbr_annotations": len(mine),
                "first_annotation_token": tokens[0],
                "last_annotation_token": tokens[-1],
            },
        )
        for one, name in zip(mine, tokens, strict=True):
            records.add(
                "sample_annotation",
                {
                    "token": name,
                    "sample_token": records.token("sample", one.key_frame),
                    "instance_token": instance,
                    "visibility_token": str(one.visibility),
                    "attribute_tokens": [] if one.attribute is None else [token("attribute", one.attribute)],
                    "translation": list(one.center),
                    "size": list(one.size),
                    "rotation": [float(np.cos(one.yaw / 2)), 0.0, 0.0, float(np.sin(one.yaw / 2))],
                    "num_lidar_pts": one.n_points,
                    "num_radar_pts": 0,
                },
            )


def common_tables() -> dict[str, list[Record]]:
    """The tables that are the same for all streets."""
    return {
        "category": [
            {"token": token("category", name), "name": name, "description": "", "index": index}
            for index, name in enumerate(LIDARSEG)
        ],
        "attribute": [
            {"token": token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES
        ],
        "visibility": [
            {"token": str(number), "level": level, "description": ""}
            for number, level in enumerate(VISIBILITY, 1)
        ],
        "sensor": [
            {
                "token": token("sensor", name),
                "channel": name,
                "modality": "lidar" if name == LIDAR else "camera",
            }
            for name in (LIDAR, *CAMERAS)
        ],
    }


def write_tables(root: Path, scenes: Sequence[Mapping[str, Sequence[Record]]]) -> None:
    """All tables of a data set. Raises OutputError."""
    tables: dict[str, list[Record]] = common_tables()
    tables |= {name: [record for scene in scenes for record in scene[name]] for name in OF_SCENES}
    for name, records in tables.items():
        write_bytes(root / VERSION / f"{name}.json", json.dumps(records, indent=0).encode())
