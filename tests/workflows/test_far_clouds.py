"""Features of clouds far from zero, or with far points, against the same cloud near zero without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.workflows import features as workflow
from ponderv2.workflows.features import FeatureSettings
from tests.workflows.test_features import save

RNG = np.random.default_rng(4)
SIZE = np.array([4.0, 3.2, 2.5])
UTM = np.array([555813.15, 5385888.54, 185.86])
ECEF = np.array([4172000.25, 883000.5, -4730000.75])


def room(n: int = 2500) -> np.ndarray:
    """Points on the walls of a room, planes between voxels: the least shift moves them."""
    points = RNG.random((n, 3)) * SIZE
    axis = RNG.integers(0, 3, n)
    points[np.arange(n), axis] = np.where(RNG.random(n) < 0.5, 0.0, SIZE[axis])
    return np.c_[points, (points * 60).round()]


ROOM = room()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "model.pth")


def features(checkpoint: Path, folder: Path, table: np.ndarray, name: str = "a.npy") -> np.ndarray:
    np.save(folder / name, table)
    workflow.run(checkpoint, out=folder / "f.npy", file=folder / name)
    return np.load(folder / "f.npy")


@pytest.mark.parametrize("place", [UTM, ECEF, np.array([-999.9, 123.4, 5.0]), np.array([0.35, 0.1, 0.7])])
def test_features_do_not_depend_on_where_the_cloud_lies(tmp_path: Path, checkpoint: Path, place: np.ndarray):
    near = features(checkpoint, tmp_path, ROOM)
    far = features(checkpoint, tmp_path, ROOM + np.r_[place, 0, 0, 0])
    np.testing.assert_allclose(far, near, atol=2e-3 * np.abs(near).max())


@pytest.mark.parametrize("ending", [".ply", ".xyz", ".pcd"])
def test_every_kind_of_file_keeps_double_precision(tmp_path: Path, checkpoint: Path, ending: str):
    near = features(checkpoint, tmp_path, ROOM)
    table = ROOM + np.r_[UTM, 0, 0, 0]
    path = tmp_path / f"a{ending}"
    rows = [
        " ".join([*(f"{one:.9f}" for one in row[:3]), *(str(int(one)) for one in row[3:])]) for row in table
    ]
    heads = {
        ".xyz": "",
        ".ply": f"ply\nformat ascii 1.0\nelement vertex {len(table)}\n"
        + "".join(f"property double {axis}\n" for axis in "xyz")
        + "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        + "end_header\n",
        ".pcd": "VERSION .7\nFIELDS x y z r g b\nSIZE 8 8 8 1 1 1\nTYPE F F F U U U\nCOUNT 1 1 1 1 1 1\n"
        + f"WIDTH {len(table)}\nHEIGHT 1\nPOINTS {len(table)}\nDATA ascii\n",
    }
    path.write_text(heads[ending] + "\n".join(rows) + "\n")
    result = workflow.run(checkpoint, out=tmp_path / "f.npy", file=path)
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), near, atol=2e-3 * np.abs(near).max())
    assert any("(555815.150, 5385890.140, 185.860) m is subtracted" in note for note in result.notes)


def test_the_library_keeps_the_origin_with_the_points(tmp_path: Path, checkpoint: Path):
    np.save(tmp_path / "far.npy", ROOM + np.r_[UTM, 0, 0, 0])
    np.save(tmp_path / "near.npy", ROOM)
    far, near = (ponderv2.read_cloud(tmp_path / f"{name}.npy") for name in ("far", "near"))
    back = far.coord.double().numpy() + far.origin
    assert np.abs(back - ROOM[:, :3] - UTM).max() < 1e-6 and near.origin == (0.0, 0.0, 0.0)
    assert far.take(torch.arange(3)).origin == far.origin
    model = ponderv2.load(checkpoint)
    expected = model.features(near)
    difference = (model.features(far) - expected).abs().amax(dim=1) > 1e-2 * expected.abs().max()
    assert difference.float().mean() < 0.01


def test_positions_of_voxels_are_those_of_the_file(tmp_path: Path, checkpoint: Path):
    for place in (np.zeros(3), UTM):
        np.save(tmp_path / "a.npy", ROOM + np.r_[place, 0, 0, 0])
        settings = FeatureSettings(level="voxel")
        workflow.run(checkpoint, out=tmp_path / "v.npz", file=tmp_path / "a.npy", settings=settings)
        archive = np.load(tmp_path / "v.npz")
        assert archive["coord"].dtype == (np.float64 if place.any() else np.float32)
        distance = np.abs(archive["coord"][archive["inverse"]] - ROOM[:, :3] - place)
        assert distance.max() <= 0.1 + 1e-5  # the size of a voxel


FAR: dict[str, list[list[float]]] = {
    "100 m": [[100.0, 0, 0]],
    "10 km": [[1e4, 1e4, 1e4]],
    "1000 km": [[1e6, -1e6, 1e6]],
    "beyond 62 bits": [[1e12, 0, 0], [-1e12, 1e12, 0]],
    "a shed": (RNG.random((30, 3)) + np.array([300.0, 0, 0])).tolist(),
    "noise all around": (RNG.uniform(-1, 1, (80, 3)) * [1e9, 1e9, 1e9]).tolist(),
}


@pytest.mark.parametrize("kind", FAR)
@pytest.mark.parametrize("place", [np.zeros(3), UTM], ids=["near", "UTM"])
def test_far_points_change_no_other_point(tmp_path: Path, checkpoint: Path, kind: str, place: np.ndarray):
    table = ROOM + np.r_[place, 0, 0, 0]
    alone = features(checkpoint, tmp_path, table)
    far = np.c_[np.array(FAR[kind]) + place, np.full((len(FAR[kind]), 3), 50)]
    both = features(checkpoint, tmp_path, np.concatenate([far[:1], table, far[1:]]))
    n = len(ROOM)
    assert np.array_equal(both[1 : n + 1], alone)
    assert np.isfinite(both).all()


def test_far_points_are_named(tmp_path: Path, checkpoint: Path):
    np.save(tmp_path / "a.npy", np.concatenate([ROOM, [[1e4, 0, 0, 9, 9, 9]]]))
    ran = CliRunner().invoke(
        app,
        ["features", str(checkpoint), "--cloud", str(tmp_path / "a.npy"), "--out", str(tmp_path / "f.npy")],
    )
    assert ran.exit_code == 0
    assert "1 point lies far from all others (the first: point 2500 at 10000, 0, 0 m)" in " ".join(
        ran.output.split()
    )


def test_what_cannot_be_in_metres_is_refused(checkpoint: Path):
    coord = torch.tensor([[0.0, 0, 0], [1e12, 0, 0]])
    cloud = ponderv2.PointCloud(coord, torch.zeros(2, 3), torch.tensor([[0.0, 0, 1], [0, 0, 1]]))
    with pytest.raises(SceneError, match=r"1e\+12 m long"):
        ponderv2.load(checkpoint).features(cloud)


@pytest.mark.parametrize("kind", ["one", "two", "same", "line", "flat"])
def test_degenerate_clouds_have_features(tmp_path: Path, checkpoint: Path, kind: str):
    coord = {
        "one": ROOM[:1, :3],
        "two": ROOM[:2, :3],
        "same": np.repeat(ROOM[:1, :3], 300, 0),
        "line": np.c_[np.linspace(0, 3, 300), np.zeros((300, 2))],
        "flat": ROOM[:300, :3] * [1, 1, 0],
    }[kind]
    rows = features(checkpoint, tmp_path, coord)
    assert rows.shape == (len(coord), 8) and np.isfinite(rows).all()
    if kind == "same":
        assert (rows == rows[0]).all()


@pytest.mark.parametrize("coord", [np.zeros((0, 3)), np.full((4, 3), np.nan)])
def test_clouds_of_nothing_are_refused(tmp_path: Path, checkpoint: Path, coord: np.ndarray):
    np.save(tmp_path / "a.npy", coord)
    with pytest.raises(SceneError, match=r"a\.npy"):
        workflow.run(checkpoint, out=tmp_path / "f.npy", file=tmp_path / "a.npy")


def test_far_points_of_a_scene_change_no_voxel_of_training_and_evaluation(tmp_path: Path):
    from ponderv2.data.config import LabelledDataConfig
    from ponderv2.data.datasets import LabelledDataset

    config = LabelledDataConfig.model_validate({"voxel": {"size": 0.1}, "sphere_crop": None, "augment": []})
    found = []
    for name, far in (("alone", np.zeros((0, 3))), ("both", np.array([[1e4, 0, 0], [1e12, -1e12, 0]]))):
        folder = tmp_path / name / "train" / "room"
        folder.mkdir(parents=True)
        coord = np.concatenate([ROOM[:, :3], far])
        np.save(folder / "coord.npy", coord)
        np.save(folder / "color.npy", np.resize(ROOM[:, 3:], (len(coord), 3)).astype(np.uint8))
        np.save(folder / "normal.npy", np.tile([0.0, 0, 1], (len(coord), 1)))
        np.save(folder / "segment.npy", np.arange(len(coord)) % 3)
        data = LabelledDataset(open_folder(tmp_path / name), "train", config)
        found.append((data.whole(data.scene(0)), data.sample(0, 0).grid_coord.amax(dim=0)))
    (alone, size), (both, other_size) = found
    assert torch.equal(both.batch.grid_coord, alone.batch.grid_coord) and torch.equal(size, other_size)
    assert torch.equal(both.batch.feature, alone.batch.feature)
    assert torch.equal(both.voxels.inverse[: len(ROOM)], alone.voxels.inverse)
    assert len(both.voxels.inverse) == len(ROOM) + 2


@pytest.mark.parametrize("kind", ["npy", "pth"])
def test_a_processed_folder_far_away_has_the_features_of_the_near_one(
    tmp_path: Path, checkpoint: Path, kind: str
):
    rows = []
    for name, place in (("near", np.zeros(3)), ("far", UTM)):
        values = {"coord": ROOM[:, :3] + place, "color": ROOM[:, 3:].astype(np.uint8)}
        values["normal"] = np.tile([0.0, 0, 1], (len(ROOM), 1))
        folder = tmp_path / name / "val"
        if kind == "npy":
            (folder / "room").mkdir(parents=True)
            for field, array in values.items():
                np.save(folder / "room" / f"{field}.npy", array)
        else:
            folder.mkdir(parents=True)
            torch.save(values, folder / "room.pth")
        workflow.run(checkpoint, out=tmp_path / f"{name}.npy", scenes=tmp_path / name, scene="room")
        rows.append(np.load(tmp_path / f"{name}.npy"))
    near, far = rows
    np.testing.assert_allclose(far, near, atol=2e-3 * np.abs(near).max())


def test_the_volume_that_is_rendered_does_not_depend_on_far_points(checkpoint: Path):
    coord = torch.from_numpy(ROOM[:, :3]).float()
    color, normal = torch.from_numpy(ROOM[:, 3:]).float(), torch.tensor([0.0, 0, 1]).expand(len(ROOM), 3)
    alone = ponderv2.PointCloud(coord, color, normal)
    far = torch.tensor([[1e5, 0, 0], [0, -1e9, 0]])
    both = ponderv2.PointCloud(
        torch.cat([coord, far]), torch.cat([color, color[:2]]), torch.cat([normal, normal[:2]])
    )
    model = ponderv2.load(checkpoint)
    expected, found = model.encode(alone), model.encode(both)
    assert torch.equal(found.feature[: len(ROOM)], expected.feature) and len(found.feature) == len(ROOM) + 2
    assert expected.field is not None and found.field is not None
    assert torch.equal(found.field.signed_distance(coord[:50]), expected.field.signed_distance(coord[:50]))
