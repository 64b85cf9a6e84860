"""Prepared drives against the same drives read in place: everything lies where the LiDAR measured it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kinds import DATASETS, reader_of
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from tests.datasets.drives.test_vehicle import write_drive


def stored(kind: str, root: Path, out: Path) -> tuple[Scene, Scene]:
    """The last scene of a data set: prepared, and read in place."""
    reader = reader_of(DATASETS[kind].model_validate({"path": root}))
    job = reader.scenes[-1]
    made = job.read()
    assert not isinstance(made, Scene)
    store = SceneStore.create(out, reader.info)
    store.write(job.split, job.name, made, job.fingerprint())
    return store.read(job.name, job.split), open_folder(root).read(job.name, job.split)


def assert_same(prepared: Scene, there: Scene) -> None:
    assert prepared.cloud.origin == there.cloud.origin == (0.0, 0.0, 0.0)
    assert torch.equal(prepared.cloud.coord, there.cloud.coord)
    assert prepared.cloud.fields.keys() == there.cloud.fields.keys()
    assert all(torch.equal(prepared.cloud.fields[name], one) for name, one in there.cloud.fields.items())
    assert prepared.cloud.labels.keys() == there.cloud.labels.keys()
    assert all(torch.equal(prepared.cloud.labels[name], one) for name, one in there.cloud.labels.items())
    frames = {frame.id: frame for frame in prepared.frames}
    assert frames.keys() == {frame.id for frame in there.frames}
    for frame in there.frames:
        ours = frames[frame.id].camera
        assert torch.allclose(ours.world_to_camera, frame.camera.world_to_camera, rtol=0.0, atol=1e-5)
        assert torch.equal(ours.intrinsics, frame.camera.intrinsics)
    assert [one.id for one in prepared.sweeps] == [one.id for one in there.sweeps]
    for ours, sweep in zip(prepared.sweeps, there.sweeps, strict=True):
        assert torch.allclose(ours.world_to_sensor, sweep.world_to_sensor, rtol=0.0, atol=1e-5)
        assert torch.equal(ours.read().coord, sweep.read().coord)
    assert (prepared.boxes is None) == (there.boxes is None)
    if prepared.boxes is not None and there.boxes is not None:
        for name, values in there.boxes.arrays.items():
            assert torch.equal(prepared.boxes.arrays[name].nan_to_num(), values.nan_to_num()), name


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("nuscenes", "nuscenes"), ("kitti", "kitti"), ("semantickitti", "semantickitti"), ("vehicle", "dgp")],
)
def test_a_prepared_scan_is_the_one_that_is_read_in_place(
    kind: str, folder: str, sample_data: Path, tmp_path: Path
) -> None:
    prepared, there = stored(kind, sample_data / folder, tmp_path / "out")
    assert len(there.cloud) > 30_000
    assert_same(prepared, there)


def test_a_scan_of_a_long_range_stays_in_the_frame_of_its_lidar(tmp_path: Path) -> None:
    write_drive(tmp_path / "raw/one")
    rng = np.random.default_rng(0)
    far = np.column_stack([rng.uniform((-40, -30, -2), (260, 90, 12), (500, 3)), np.full(500, 128.0)])
    far[0, 0] = 260.0
    np.savez(tmp_path / "raw/one/2.npz", data=far)
    prepared, there = stored("vehicle", tmp_path / "raw", tmp_path / "out")
    assert float(there.cloud.coord[:, 0].max()) == 260.0 and there.boxes is not None and there.frames
    assert_same(prepared, there)
