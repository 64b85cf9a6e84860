"""`ponder features`: rows in the order of the input, blocks equal to the whole, folders that go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ponderv2
from ponder_cli.app import app
from ponderv2.encoder.image_backbone.config import ImageBackboneConfig
from ponderv2.errors import CheckpointError, OutputError
from ponderv2.io.ply import encode_ply
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.models.voxel_features import BlockSettings, encode_voxels
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint
from ponderv2.workflows import features as workflow
from ponderv2.workflows.features import FeatureSettings
from tests.workflows.heard import Heard

ENCODER = {"kind": "sparse_unet", "base_channels": 8, "channels": [8, 8], "layers": [1, 1]}
MODEL = {
    "encoder": ENCODER,
    "projection": {"kind": "conv3d", "out_channels": 8},
    "renderer": {
        "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8, "n_blocks": 0}, "share_volume": True}
    },
}
DATA = {"voxel": {"size": 0.1}, "features": ["color", "normal"]}
PROMPTED = {**ENCODER, "kind": "prompted_sparse_unet", "conditions": ["A", "ScanNet"]}


def save(path: Path, **changes: object) -> Path:
    """A small model with random weights and statistics."""
    torch.manual_seed(0)
    config = PretextConfig.model_validate({**MODEL, **changes})
    model = PretextModel(config)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_()
    settings = {"model": config.model_dump(mode="json"), "data": DATA}
    save_checkpoint(path, Checkpoint("pretext", settings, model.state_dict()))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pth")


@pytest.fixture
def cloud(rng: torch.Generator) -> ponderv2.PointCloud:
    """A bumpy floor of 6 m x 4 m."""
    coord = torch.rand(3000, 3, generator=rng) * torch.tensor([6.0, 4.0, 0.3])
    color = (torch.rand(3000, 3, generator=rng) * 255).round()
    return ponderv2.PointCloud(coord, color, torch.tensor([0.0, 0.0, 1.0]).expand(3000, 3).contiguous())


def write(path: Path, cloud: ponderv2.PointCloud) -> Path:
    color = cloud.color.byte().numpy()
    path.write_bytes(encode_ply(cloud.coord.numpy(), cloud.normal.numpy(), colors=color))
    return path


def test_three_lines_of_python_and_the_command_give_the_same_rows(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    model = ponderv2.load(checkpoint)
    expected = model.features(ponderv2.read_cloud(file))
    assert torch.equal(expected, model.encode(cloud).feature)
    words = ["features", str(checkpoint), "--ply", str(file), "--out", str(tmp_path / "f.npy")]
    ran = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "r.json")])
    assert ran.exit_code == 0, ran.output
    rows = np.load(tmp_path / "f.npy")
    assert rows.dtype == np.float32 and np.array_equal(rows, expected.numpy())
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["n_points"], result["channels"], result["notes"]) == (3000, 8, [])


def test_blocks_that_see_enough_give_what_the_whole_cloud_gives(checkpoint, cloud):
    model = ponderv2.load(checkpoint)
    whole = model.voxel_features(cloud, blocks=BlockSettings(voxels=10**6))
    # Stem 2, one halving 1, two convolutions there 4, two here 2: the encoder sees 9 cells of 10 cm far.
    parts = model.voxel_features(cloud, blocks=BlockSettings(voxels=1300, overlap=1.0))
    assert whole.n_blocks == 1 and parts.n_blocks > 1
    torch.testing.assert_close(parts.feature, whole.feature, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("voxels", [10**6, 1300])
def test_of_some_points_only_their_blocks_are_encoded_and_kept(checkpoint, cloud, voxels, monkeypatch):
    loaded = ponderv2.load(checkpoint)
    blocks = BlockSettings(voxels=voxels, overlap=1.0)
    whole = loaded.voxel_features(cloud, blocks=blocks)
    chosen = torch.nonzero(cloud.coord[:, 0] < cloud.coord[:, 0].min() + 0.3)[::3, 0]
    seen = []
    encode = type(loaded.model).encode
    monkeypatch.setattr(
        type(loaded.model), "encode", lambda self, batch: seen.append(len(batch.coord)) or encode(self, batch)
    )
    some = encode_voxels(loaded.model, cloud, loaded.data, "rooms", blocks, only=chosen)
    assert torch.equal(some.feature[some.inverse[chosen]], whole.feature[whole.inverse[chosen]])
    assert len(seen) == some.n_blocks and (some.n_blocks < whole.n_blocks or whole.n_blocks == 1)
    asked = torch.unique(whole.inverse[chosen])
    assert len(some.feature) == len(some.coord) == len(asked)
    assert torch.equal(some.coord, whole.coord[asked])
    assert torch.equal(some.inverse >= 0, torch.isin(whole.inverse, asked))


def test_an_encoder_of_images_is_refused(checkpoint, cloud):
    loaded = ponderv2.load(checkpoint)
    loaded.model.encoder_config = ImageBackboneConfig()
    with pytest.raises(CheckpointError, match="sees images, and a cloud has none"):
        loaded.voxel_features(cloud)


def test_of_some_points_far_ones_have_the_rows_of_all(checkpoint, cloud):
    """Two clouds out of sight of each other, and single points that are far from both."""
    model = ponderv2.load(checkpoint)
    n = len(cloud)
    single = replace(cloud.take(torch.arange(2)), coord=torch.tensor([[1e5, 0, 0], [0, -1e6, 0]]))
    parts = [cloud, replace(cloud, coord=cloud.coord + 1e4), single]
    both = ponderv2.PointCloud(
        *(torch.cat([getattr(one, name) for one in parts]) for name in ("coord", "color", "normal"))
    )
    whole = encode_voxels(model.model, both, model.data, "rooms")
    for chosen in ([3, n + 5, 2 * n + 1], [n + 5], [2 * n]):
        some = encode_voxels(model.model, both, model.data, "rooms", only=torch.tensor(chosen))
        assert torch.equal(some.feature[some.inverse[chosen]], whole.feature[whole.inverse[chosen]])
        assert torch.equal(some.coord[some.inverse[chosen]], whole.coord[whole.inverse[chosen]])
        assert len(some.feature) == len(chosen)


def test_blocks_that_see_nothing_beside_them_differ_at_their_borders(checkpoint, cloud):
    model = ponderv2.load(checkpoint)
    whole = model.features(cloud)
    parts = model.features(cloud, blocks=BlockSettings(voxels=1500, overlap=0.0))
    assert not torch.allclose(parts, whole, atol=1e-3)


def test_memory_that_runs_out_makes_smaller_blocks(checkpoint, cloud, monkeypatch):
    from ponderv2.models import voxel_features as encoding

    monkeypatch.setattr(encoding, "FEWEST_VOXELS", 100)
    loaded = ponderv2.load(checkpoint)
    whole = loaded.features(cloud)
    encode = loaded.model.encode

    def limited(batch):
        if len(batch.coord) > 1800:
            raise MemoryError
        return encode(batch)

    monkeypatch.setattr(loaded.model, "encode", limited)
    parts = loaded.voxel_features(cloud, blocks=BlockSettings(voxels=10**6, overlap=1.0))
    assert parts.n_blocks > 1
    torch.testing.assert_close(parts.of_points(), whole, atol=1e-5, rtol=1e-5)


def test_voxel_level_leads_back_to_the_points(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    settings = FeatureSettings(level="voxel", half=True)
    result = workflow.run(checkpoint, out=tmp_path / "v.npz", file=file, settings=settings)
    archive = np.load(tmp_path / "v.npz")
    assert archive["feature"].dtype == np.float16 and len(archive["coord"]) == result.n_voxels
    distance = np.abs(archive["coord"][archive["inverse"]] - cloud.coord.numpy()).max()
    assert distance <= 0.1 + 1e-6
    expected = ponderv2.load(checkpoint).features(cloud).numpy().astype(np.float16)
    assert np.array_equal(archive["feature"][archive["inverse"]], expected)


def test_points_without_a_position_have_rows_of_nothing(tmp_path, checkpoint):
    table = np.random.default_rng(0).random((200, 3))
    table[7] = np.nan
    np.save(tmp_path / "cloud.npy", table)
    result = workflow.run(checkpoint, out=tmp_path / "f.npy", file=tmp_path / "cloud.npy")
    rows = np.load(tmp_path / "f.npy")
    assert rows.shape == (200, 8) and np.isnan(rows[7]).all() and np.isfinite(np.delete(rows, 7, 0)).all()
    assert len(result.notes) == 3


def make_store(root: Path, cloud: ponderv2.PointCloud, names: tuple[str, ...]) -> SceneStore:
    store = SceneStore.create(root, DatasetInfo("rooms", splits=("val",)))
    for i, name in enumerate(names):
        folder = root / "val" / name
        folder.mkdir(parents=True)
        part = cloud.take(torch.arange(500 * (i + 1)))
        for field in ("coord", "color", "normal"):
            np.save(folder / f"{field}.npy", getattr(part, field).numpy())
    return store


def test_a_split_goes_on_where_it_stopped_and_other_weights_are_refused(tmp_path, checkpoint, cloud):
    make_store(tmp_path / "data", cloud, ("a", "group/b"))
    out = tmp_path / "out"
    first = workflow.run(checkpoint, out=out, scenes=tmp_path / "data", split="val")
    assert (len(first.clouds), first.n_points) == (2, 1500)
    before = np.load(out / "group" / "b.npy")
    (out / "group" / "b.npy").unlink()
    second = workflow.run(checkpoint, out=out, scenes=tmp_path / "data", split="val")
    assert (second.skipped, [entry["name"] for entry in second.clouds]) == (1, ["group/b"])
    assert np.array_equal(np.load(out / "group" / "b.npy"), before)
    other = save(tmp_path / "other.pth", encoder={**ENCODER, "layers": [2, 1]})
    with pytest.raises(OutputError, match="weights differ"):
        workflow.run(other, out=out, scenes=tmp_path / "data", split="val")


def test_a_scene_of_the_store_equals_its_cloud(tmp_path, checkpoint, cloud):
    make_store(tmp_path / "data", cloud, ("a",))
    workflow.run(checkpoint, out=tmp_path / "a.npy", scenes=tmp_path / "data", scene="a")
    expected = ponderv2.load(checkpoint).features(cloud.take(torch.arange(500)))
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected.numpy())


def test_a_prompted_encoder_is_told_the_dataset_and_unknown_ones_are_refused(tmp_path, cloud):
    path = save(tmp_path / "p.pth", encoder=PROMPTED, conditions=["ScanNet", "A"])
    model = ponderv2.load(path)
    usual, named, other = (model.features(cloud, name) for name in (None, "ScanNet", "A"))
    assert torch.equal(usual, named) and not torch.allclose(usual, other)
    with pytest.raises(CheckpointError, match="knows the datasets A, ScanNet, not 'B'"):
        model.features(cloud, "B")


def test_an_encoder_of_other_features_is_refused(tmp_path, cloud):
    path = save(tmp_path / "p.pth", encoder={**ENCODER, "in_channels": 4})
    with pytest.raises(CheckpointError, match="takes 4 numbers per point"):
        ponderv2.load(path).features(cloud)


def test_clouds_with_less_than_the_encoder_takes_have_features(checkpoint, cloud):
    model = ponderv2.load(checkpoint)
    bare = model.features(ponderv2.PointCloud(cloud.coord))
    assert bare.shape == (3000, 8) and bool(bare.isfinite().all())
    hidden = model.features(cloud, hide=("color", "normal"))
    zeros = ponderv2.PointCloud(cloud.coord, torch.full((3000, 3), 127.5), torch.zeros(3000, 3))
    assert torch.equal(hidden, model.features(zeros)) and not torch.allclose(hidden, model.features(cloud))
    assert model.encode(ponderv2.PointCloud(cloud.coord)).feature.shape == (3000, 8)


def test_hidden_inputs_are_an_option_and_belong_to_a_folder(tmp_path, checkpoint, cloud):
    make_store(tmp_path / "data", cloud, ("a",))
    words = ["features", str(checkpoint), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*words, "--hide", "color,normal"]).exit_code == 0
    expected = ponderv2.load(checkpoint).features(cloud.take(torch.arange(500)), hide=("color", "normal"))
    assert np.array_equal(np.load(tmp_path / "out" / "a.npy"), expected.numpy())
    assert "hidden differ" in CliRunner().invoke(app, words).output
    assert CliRunner().invoke(app, [*words, "--hide", "height"]).exit_code == 2


@pytest.mark.parametrize(("step", "said"), [(0.05, False), (0.12, False), (0.3, True)])
def test_clouds_coarser_than_the_voxels_are_reported(tmp_path, checkpoint, step: float, said: bool):
    line = np.arange(0.0, 3.0, step)
    np.save(tmp_path / "grid.npy", np.stack([*np.meshgrid(line, line, [0.0])], axis=-1).reshape(-1, 3))
    heard = Heard()
    run = workflow.run(checkpoint, out=tmp_path / "f.npy", file=tmp_path / "grid.npy", report=heard)
    notes = [note for note in run.notes if "trained on denser clouds" in note]
    assert bool(notes) == said == any("denser clouds" in note for note in heard.noted)
    assert not said or "points are 0.3 m apart, the encoder's voxels 0.1 m" in notes[0]


def test_a_cloud_in_another_unit_is_reported(tmp_path, checkpoint, cloud):
    np.save(tmp_path / "km.npy", cloud.coord.numpy() / 1000)
    result = workflow.run(checkpoint, out=tmp_path / "f.npy", file=tmp_path / "km.npy")
    assert any("all 3000 points lie in" in note and "--scale" in note for note in result.notes)


def test_a_wrong_ending_names_the_right_one(tmp_path, checkpoint, cloud):
    file = write(tmp_path / "room.ply", cloud)
    with pytest.raises(OutputError, match=r"go into a file \.npy") as problem:
        workflow.run(checkpoint, out=tmp_path / "f.txt", file=file)
    assert problem.value.fix == "--out f.npy"
