"""Drives in the format of nuScenes with many objects of all kinds, and predictions of them, partly right.

For the detection score: objects without points, without attribute, out of range, in bicycle racks, seen once
(so that their velocity is not known); predictions with equal scores, unknown velocities, none at all.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, CATEGORIES, DETECTION_NAMES, detection_class
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.detection_rules import CLASS_ATTRIBUTES
from ponderv2.datasets.nuscenes.world_boxes import KeyTruth, key_truths
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from tests.datasets.drives.nuscenes_drives import SAMPLE, START, as_tables, ego_pose, write_drives

SCENES = ("scene-0103", "scene-0916")
"""The two of mini_val."""
SIZES = {
    "car": (1.9, 4.5, 1.7), "truck": (2.5, 7.0, 2.9), "bus": (2.9, 11.0, 3.5), "trailer": (2.9, 12.0, 3.9),
    "construction_vehicle": (2.7, 6.5, 3.2), "pedestrian": (0.6, 0.8, 1.8), "motorcycle": (0.8, 2.1, 1.5),
    "bicycle": (0.6, 1.7, 1.3), "traffic_cone": (0.4, 0.4, 1.1), "barrier": (2.5, 0.5, 1.0),
}  # fmt: skip
"""Width, length, height."""
OTHERS = ("static_object.bicycle_rack", "animal", "movable_object.debris")


def write_crowd(
    root: Path, seed: int, per_class: int = 12, n_samples: int = 5, without: tuple[str, ...] = ()
) -> NuscenesConfig:
    """Drives whose annotations are replaced by a random crowd around the vehicle; no class of `without`."""
    made = write_drives(root, SCENES, n_samples=n_samples)
    rng = np.random.default_rng(seed)
    categories = {one["name"]: one["token"] for one in made.tables["category"]}
    attributes = {one["name"]: one["token"] for one in made.tables["attribute"]}
    made.tables["instance"], made.tables["sample_annotation"] = [], []
    first = {
        name: next(c for c in CATEGORIES if detection_class(c) == i) for i, name in enumerate(DETECTION_NAMES)
    }
    for scene in made.tables["scene"]:
        samples = [one["token"] for one in made.tables["sample"] if one["scene_token"] == scene["token"]]
        names = [first[name] for name in DETECTION_NAMES if name not in without for _ in range(per_class)]
        racks: list[np.ndarray] = []
        for category in [OTHERS[0]] * 3 + list(OTHERS[1:]) * 2 + names:
            _object(made, rng, category, samples, racks, categories, attributes)
    (root / "maps").mkdir()
    Image.new("L", (4, 4)).save(root / "maps" / "none.png")  # the kit opens it
    for table in ("instance", "sample_annotation"):
        (root / made.version / f"{table}.json").write_text(json.dumps(made.tables[table]))
    return NuscenesConfig(path=root)


def _object(made, rng, category: str, samples, racks, categories, attributes) -> None:  # type: ignore[no-untyped-def]
    """One track in some of the samples."""
    number = detection_class(category)
    name = DETECTION_NAMES[number] if number >= 0 else ""
    size = np.array(SIZES.get(name, (2.0, 6.0, 1.5))) * rng.uniform(0.8, 1.2, 3)
    yaw = rng.uniform(-np.pi, np.pi)
    place = ego_pose(START + SAMPLE)[:3, 3] + np.append(rng.uniform(-48, 48, 2), rng.uniform(0.5, 1.5))
    speed = np.append(rng.normal(0, 4, 2), 0.0) * (rng.random() < 0.5)
    if category == OTHERS[0]:
        racks.append(place)
        speed *= 0
    if name in ("bicycle", "motorcycle") and rng.random() < 0.3:
        place = racks[rng.integers(len(racks))] + rng.uniform(-1.2, 1.2, 3) * (1, 1, 0.2)
        speed *= 0
    there = sorted(rng.choice(len(samples), rng.integers(1, len(samples) + 1), replace=False).tolist())
    tokens = [made.token() for _ in there]
    instance = made.add(
        "instance", category_token=categories[category], nbr_annotations=len(tokens),
        first_annotation_token=tokens[0], last_annotation_token=tokens[-1],
    )  # fmt: skip
    kinds = CLASS_ATTRIBUTES.get(name, ())
    for position, sample in enumerate(there):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
        pose[:3, 3] = place + speed * 1e-6 * SAMPLE * sample
        own = [attributes[kinds[rng.integers(len(kinds))]]] if kinds and rng.random() < 0.9 else []
        made.add(
            "sample_annotation",
            token=tokens[position],
            sample_token=samples[sample],
            instance_token=instance,
            visibility_token="3",
            attribute_tokens=own,
            size=size.tolist(),
            prev=tokens[position - 1] if position else "",
            next=tokens[position + 1] if position + 1 < len(tokens) else "",
            num_lidar_pts=int(rng.integers(0, 4)),
            num_radar_pts=int(rng.integers(0, 2)),
            **as_tables(pose),
        )


def truths_of(config: NuscenesConfig, split: str = "mini_val") -> list[KeyTruth]:
    """Of a split, in order."""
    return list(key_truths(config, split).values())


def guesses(truth: KeyTruth, seed: int, without: tuple[str, ...] = (), false: int = 60) -> Detections:
    """Predictions of a key frame in the frame of its scene, double precision."""
    rng = np.random.default_rng(seed)
    true = in_scene(truth.boxes, truth)
    true = true.take(true.category >= 0)
    copies = np.repeat(np.arange(len(true)), rng.integers(0, 4, len(true)))
    boxes = true.take(torch.from_numpy(copies))
    wrong = true.take(torch.from_numpy(rng.integers(0, max(len(true), 1), false if len(true) else 0)))
    n, more = len(boxes), len(wrong)
    spread = np.concatenate([rng.exponential(0.8, n), np.full(more, 30.0)])[:, None]

    def noisy(name: str, scale: float | np.ndarray) -> torch.Tensor:
        values = torch.cat([getattr(boxes, name), getattr(wrong, name)])
        return values + torch.from_numpy(rng.normal(0, 1, tuple(values.shape)) * scale)

    size = torch.cat([boxes.size, wrong.size]) * torch.from_numpy(rng.uniform(0.7, 1.4, (n + more, 3)))
    velocity = noisy("velocity", 1.0)
    velocity[:, 2] = 0
    velocity[torch.from_numpy(rng.random(n + more) < 0.1)] = torch.nan
    category = torch.cat([boxes.category, wrong.category])
    other = torch.from_numpy(rng.integers(0, len(DETECTION_NAMES), n + more))
    category = torch.where(torch.from_numpy(rng.random(n + more) < 0.1), other, category)
    score = torch.from_numpy(
        np.round(np.clip(0.8 - 0.02 * spread[:, 0] + rng.normal(0, 0.3, n + more), 0.05, 1), 1)
    )
    attributes = [
        [ATTRIBUTES.index(one) for one in CLASS_ATTRIBUTES[name]] or [-1] for name in DETECTION_NAMES
    ]
    attribute = torch.tensor([rng.choice(attributes[one]) for one in category.tolist()], dtype=torch.long)
    found = Detections(
        Boxes(
            center=noisy("center", spread * (1, 1, 0.1)),
            size=size,
            yaw=noisy("yaw", 0.5) + np.pi * torch.from_numpy(rng.integers(0, 5, n + more) == 0).double(),
            velocity=velocity,
            category=category,
            instance=torch.full((n + more,), -1),
            fields={"attribute": attribute},
        ),
        score,
    )
    left_out = torch.tensor([DETECTION_NAMES.index(name) for name in without], dtype=torch.long)
    mixed = torch.from_numpy(rng.permutation(n + more))
    return found.take(mixed).take(~torch.isin(category[mixed], left_out))


def in_scene(boxes: Boxes, truth: KeyTruth) -> Boxes:
    """World to the frame of the scene, by matrices: heading and velocity in three dimensions."""
    inverse = torch.linalg.inv(truth.pose.scene_to_world)
    turn = inverse[:3, :3]
    heading = torch.stack([torch.cos(boxes.yaw), torch.sin(boxes.yaw), 0 * boxes.yaw], dim=1) @ turn.T
    return Boxes(
        center=boxes.center @ turn.T + inverse[:3, 3],
        size=boxes.size,
        yaw=torch.atan2(heading[:, 1], heading[:, 0]),
        velocity=boxes.velocity @ turn.T,
        category=boxes.category,
        instance=boxes.instance,
        fields=boxes.fields,
    )
