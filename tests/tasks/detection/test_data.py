"""What a detector sees of a scene where it predicts, against points whose places are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ponderv2.data.config import LabelledDataConfig
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import PointCloud, Scene, Sweep
from ponderv2.tasks.detection.data import DetectionDataset
from tests.data.test_any_scene import ToyReader

OWN = torch.tensor([[3.0, 4.0, 0.0], [-15.0, 2.0, 1.0], [50.0, 0.0, 0.0]])
EARLIER = torch.tensor([[6.0, -7.0, 0.0], [0.0, 90.0, 0.0]])


def config(**changes: object) -> LabelledDataConfig:
    return LabelledDataConfig.model_validate(
        {
            "voxel": {"size": 0.5},
            "features": ["coord"],
            "fields": ["time"],
            "centred": False,
            "range": {"lower": [-20.0, -20.0, -5.0], "upper": [20.0, 20.0, 5.0]},
            "sweeps": {"n_sweeps": 2, "close": 1.0},
            "sphere_crop": None,
            "mix_probability": 0.0,
            **changes,
        }
    )


def reader(folder: Path) -> ToyReader:
    np.savez(folder / "0.npz", coord=EARLIER.numpy())
    sweep = Sweep("0", "lidar", torch.eye(4), folder / "0.npz", time=-0.1)
    cloud = PointCloud(OWN, fields={"time": torch.zeros(len(OWN))})
    return ToyReader(folder, Scene("drive", cloud, sweeps=(sweep,)))


def test_points_of_sweeps_beyond_the_range_are_not_seen_as_in_training(tmp_path: Path) -> None:
    seen = DetectionDataset(reader(tmp_path), "train", config()).whole_scene(0)
    found = transform_points(seen.to_scene, seen.batch.coord.double())
    wanted = torch.cat([OWN[:2], EARLIER[:1]]).double()
    assert torch.allclose(found[found[:, 0].argsort()], wanted[wanted[:, 0].argsort()], atol=1e-5)


def test_the_way_back_of_a_centred_scene_undoes_both_shifts(tmp_path: Path) -> None:
    everything = replace(reader(tmp_path).scene, sweeps=())
    store = ToyReader(tmp_path, everything)
    settings = config(centred=True, range=None, sweeps=None)
    seen = DetectionDataset(store, "train", settings).whole_scene(0)
    found = transform_points(seen.to_scene, seen.batch.coord.double())
    assert torch.allclose(found[found[:, 0].argsort()], OWN[OWN[:, 0].argsort()].double(), atol=1e-5)
