"""`ponder features --pca`: coloured clouds and images, with the same axes for all clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponderv2.errors import OutputError
from ponderv2.evaluation.feature_colors import fit_axes
from ponderv2.io.ply import read_ply
from ponderv2.workflows import features as workflow
from ponderv2.workflows.features import FeatureSettings
from tests.workflows.test_features import ENCODER, make_store, save, write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pth")


@pytest.fixture
def cloud(rng: torch.Generator) -> ponderv2.PointCloud:
    """A bumpy floor of 3 m x 2 m."""
    coord = torch.rand(1500, 3, generator=rng) * torch.tensor([3.0, 2.0, 0.3])
    color = (torch.rand(1500, 3, generator=rng) * 255).round()
    return ponderv2.PointCloud(coord, color, torch.tensor([0.0, 0.0, 1.0]).expand(1500, 3).contiguous())


def colors_in(path: Path) -> np.ndarray:
    vertex = read_ply(path).vertex
    return np.stack([vertex[name] for name in ("red", "green", "blue")], axis=1)


@pytest.mark.parametrize("level", ["point", "voxel"])
def test_the_coloured_cloud_has_the_points_of_the_file_and_the_colours_of_its_features(
    tmp_path, checkpoint, cloud, level
):
    file = write(tmp_path / "room.ply", cloud)
    settings = FeatureSettings(level=level)
    result = workflow.run(checkpoint, file=file, pca=tmp_path / "look.ply", settings=settings)
    assert result.pictures == [tmp_path / "look.ply"] and result.out is None
    vertex = read_ply(tmp_path / "look.ply").vertex
    np.testing.assert_allclose(vertex["x"], cloud.coord[:, 0], atol=1e-5)
    np.testing.assert_allclose(vertex["z"], cloud.coord[:, 2], atol=1e-5)
    feature = ponderv2.load(checkpoint).features(ponderv2.read_cloud(file))
    difference = colors_in(tmp_path / "look.ply").astype(int) - fit_axes([feature]).colors(feature)
    assert np.abs(difference).max() <= 3


def test_several_files_share_their_axes(tmp_path, checkpoint, cloud):
    first = write(tmp_path / "a.ply", cloud)
    part = write(tmp_path / "b.ply", cloud.take(cloud.coord[:, 0] < 1.2))
    words = [
        "features",
        str(checkpoint),
        "--ply",
        str(first),
        "--ply",
        str(part),
        "--pca",
        str(tmp_path / "p"),
    ]
    ran = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "f")])
    assert ran.exit_code == 0, ran.output
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names == {"a.ply", "a.png", "b.ply", "b.png"}
    rows = [torch.from_numpy(np.load(tmp_path / "f" / f"{name}.npy")) for name in "ab"]
    axes = fit_axes(rows)
    for name, feature in zip("ab", rows, strict=True):
        assert np.abs(colors_in(tmp_path / "p" / f"{name}.ply").astype(int) - axes.colors(feature)).max() <= 3
    assert not np.array_equal(fit_axes(rows[1:]).colors(rows[1]), axes.colors(rows[1]))


def test_an_encoder_beside_it_adds_a_panel(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    other = save(tmp_path / "other.pth", encoder={**ENCODER, "layers": [2, 1]})
    workflow.run(checkpoint, file=file, pca=tmp_path / "one.png")
    workflow.run(checkpoint, file=file, pca=tmp_path / "two.jpg", beside=[other])
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.jpg"))
    width = one.shape[1] // 2
    assert one.shape[1] == 2 * width and two.shape == (one.shape[0], 3 * width, 3)
    own, last = one[:, width:].astype(int), two[:, 2 * width :].astype(int)
    assert np.abs(own - last).mean() < 12  # JPEG
    assert np.abs(two[:, width : 2 * width].astype(int) - last).mean() > 12


def test_random_weights_are_a_panel_too_and_always_the_same(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    for name in ("one.png", "two.png"):
        workflow.run(checkpoint, file=file, pca=tmp_path / name, random=True)
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert np.array_equal(one, two)
    middle, last = np.split(one.astype(int), 3, axis=1)[1:]
    assert np.abs(middle - last).mean() > 12


def test_a_split_is_coloured_also_where_its_features_exist(tmp_path, checkpoint, cloud):
    make_store(tmp_path / "data", cloud, ("a", "group/b"))
    out = tmp_path / "out"
    workflow.run(checkpoint, out=out, scenes=tmp_path / "data", split="val")
    result = workflow.run(checkpoint, out=out, scenes=tmp_path / "data", split="val", pca=tmp_path / "p")
    assert result.skipped == 2 and len(result.pictures) == 4
    assert (tmp_path / "p" / "group" / "b.png").is_file()


def test_points_without_a_position_are_not_in_the_picture(tmp_path, checkpoint):
    table = np.random.default_rng(0).random((200, 3))
    table[7] = np.nan
    np.save(tmp_path / "cloud.npy", table)
    workflow.run(checkpoint, file=tmp_path / "cloud.npy", pca=tmp_path / "p.ply")
    assert len(colors_in(tmp_path / "p.ply")) == 199


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    with pytest.raises(OutputError, match="no picture that is written"):
        workflow.run(checkpoint, file=file, pca=tmp_path / "a.gif")
    with pytest.raises(OutputError, match="pictures of several clouds go into a folder"):
        workflow.run(checkpoint, file=[file, write(tmp_path / "b.ply", cloud)], pca=tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    with pytest.raises(OutputError, match=r"several files are called room"):
        twin = write(tmp_path / "sub" / "room.ply", cloud)
        workflow.run(checkpoint, file=[file, twin], out=tmp_path / "f")
    with pytest.raises(OutputError, match="nothing to write"):
        workflow.run(checkpoint, file=file)
    assert CliRunner().invoke(app, ["features", str(checkpoint), "--ply", str(file)]).exit_code == 2
    words = ["features", str(checkpoint), "--ply", str(file), "--out", "f.npy", "--beside", str(checkpoint)]
    assert CliRunner().invoke(app, words).exit_code == 2
