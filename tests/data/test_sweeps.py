"""Accumulated sweeps against drives whose landmarks are known, before and after an augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ponderv2.data.scan_config import SweepsConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.data.sweeps import accumulated, chosen_sweeps, with_sweeps_behind
from ponderv2.geometry.transforms import rotation_matrix, scale_matrix
from ponderv2.scenes.scene import PointCloud, Scene
from tests.datasets.drives.nuscenes_drives import LANDMARKS, write_drives


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root: Path = write_drives(tmp_path_factory.mktemp("nuscenes"), ("scene-0061",), n_samples=3).root
    folder = open_folder(root)
    return folder.read(folder.names("train")[2], "train")


def test_ten_sweeps_are_the_landmarks_ten_times_with_their_age(scene: Scene) -> None:
    cloud = accumulated(scene, SweepsConfig(close=0.0)).cloud
    assert len(cloud) == 10 * LANDMARKS
    by_sweep = cloud.coord.reshape(10, LANDMARKS, 3)
    assert float((by_sweep - scene.cloud.coord).abs().max()) < 2e-4
    ages = cloud.fields["time"].reshape(10, LANDMARKS)
    expected = (0.05 * torch.arange(10.0))[:, None].expand(10, LANDMARKS)
    assert torch.allclose(ages, expected, atol=1e-6)
    assert (cloud.labels["segment"][LANDMARKS:] == -1).all()
    assert torch.equal(cloud.labels["segment"][:LANDMARKS], scene.cloud.labels["segment"])
    assert torch.equal(cloud.fields["intensity"].reshape(10, -1)[4], scene.cloud.fields["intensity"])


def test_accumulation_commutes_with_the_motion_of_the_scene(scene: Scene) -> None:
    motion = rotation_matrix(0.7, "z") @ scale_matrix(1.05)
    before = accumulated(scene, SweepsConfig()).moved(motion).cloud
    after = accumulated(scene.moved(motion), SweepsConfig()).cloud
    assert torch.allclose(before.coord, after.coord, atol=1e-3)
    both = SweepsConfig(close=8.0, close_in_scene=True)
    assert len(accumulated(scene.moved(motion), both).cloud) == len(accumulated(scene, both).cloud)


def test_points_close_to_the_sensor_of_a_sweep_are_removed(scene: Scene) -> None:
    config = SweepsConfig(n_sweeps=4, close=6.0)
    kept = LANDMARKS
    for sweep in scene.sweeps[1:4]:
        kept += int((sweep.read().coord[:, :2].abs() >= 6.0).any(dim=1).sum())
    assert LANDMARKS < kept < 4 * LANDMARKS
    assert len(accumulated(scene, config).cloud) == kept
    own = int((scene.cloud.coord[:, :2].abs() >= 6.0).any(dim=1).sum())
    again = accumulated(scene, config.model_copy(update={"close_in_scene": True}))
    assert len(again.cloud) == kept - LANDMARKS + own


def test_no_point_is_removed_where_each_has_a_feature(scene: Scene) -> None:
    close = SweepsConfig(n_sweeps=4, close=6.0, close_in_scene=True)
    found = with_sweeps_behind(scene, close).cloud
    assert torch.equal(found.coord[:LANDMARKS], scene.cloud.coord)
    assert len(found) == len(accumulated(scene, SweepsConfig(n_sweeps=4, close=6.0)).cloud)


def test_later_sweeps_are_never_taken_and_random_ones_are_repeatable(scene: Scene) -> None:
    later = replace(scene.sweeps[3], time=0.05)
    more = replace(scene, sweeps=(*scene.sweeps, later))
    assert all(one.time is not None and one.time < 0 for one in chosen_sweeps(more, SweepsConfig(), None))
    config = SweepsConfig(n_sweeps=4, choice="random")
    draws = [
        [one.id for one in chosen_sweeps(scene, config, torch.Generator().manual_seed(seed))]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 3
    with pytest.raises(ValueError, match="no generator"):
        chosen_sweeps(scene, config, None)


def test_colours_and_normals_of_the_scene_are_filled_up(scene: Scene) -> None:
    count = len(scene.cloud)
    normal = torch.nn.functional.normalize(torch.ones(count, 3), dim=1)
    cloud = PointCloud(scene.cloud.coord, torch.zeros(count, 3), normal, fields=scene.cloud.fields)
    found = accumulated(replace(scene, cloud=cloud), SweepsConfig(n_sweeps=2, close=0.0)).cloud
    assert found.color is not None and found.normal is not None
    assert (found.color[count:] == 127.5).all() and (found.normal[count:] == 0).all()
    assert len(found.color) == len(found.normal) == len(found)
