"""Views without colour, alone and beside others: store, fusion, losses, training, meshes, renders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import SceneError
from ponderv2.reconstruction.fusion import TsdfFusion
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.prepared import DecodedFrame, FusionSettings, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.workflows import evaluate, pretrain, reconstruct, render
from ponderv2.workflows.config import ReconstructConfig, RenderConfig
from tests.scenes.closed_form_room import SIZE, color_at, room_cloud, room_frames
from tests.workflows.heard import Heard
from tests.workflows.test_render import REFINE
from tests.workflows.tiny import pretrain_config


def without_color(cloud: PreparedCloud) -> PreparedCloud:
    return replace(cloud, color=None)


def colorless(frames: list[DecodedFrame], which: slice = slice(None)) -> list[DecodedFrame]:
    """The frames, of which some lose their colour."""
    chosen = range(len(frames))[which]
    return [replace(one, color=None) if i in chosen else one for i, one in enumerate(frames)]


def write(root: Path, frames: list[DecodedFrame], colored: bool = False, name: str = "boxes") -> Path:
    """A dataset of two rooms to train on and one to validate."""
    store = SceneStore.create(root, DatasetInfo(name, splits=("train", "val")))
    for split, count in (("train", 2), ("val", 1)):
        for seed in range(count):
            cloud = room_cloud(1500, seed)
            cloud = replace(cloud, labels={}) if colored else replace(cloud, labels={}, color=None)
            store.write(split, f"room{seed}", SceneStream.of(cloud, frames))
    return root


@pytest.fixture(scope="module")
def depth_alone(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("depth"), colorless(room_frames()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, depth_alone) -> tuple[pretrain.PretrainResult, Heard]:
    heard = Heard()
    out = tmp_path_factory.mktemp("runs")
    return pretrain.run(pretrain_config(), scenes=depth_alone, out=out, report=heard), heard


def test_a_view_without_colour_comes_back_without_one(depth_alone):
    folder = depth_alone / "train" / "room0"
    assert not (folder / "color.npy").exists() and not (folder / "frames" / "color").exists()
    scene = open_folder(depth_alone).read("room0")
    assert scene.only_depth and not any(frame.has_color for frame in scene.frames)
    for frame, wanted in zip(scene.frames, room_frames(), strict=True):
        assert np.array_equal(frame.read_depth().numpy(), wanted.depth * np.float32(0.001))
        assert bool(frame.read_visible().all())
        with pytest.raises(SceneError, match="depth alone"):
            frame.read_color()
    assert torch.equal(scene.cloud.color.unique(), torch.tensor([127.5]))  # which the encoder sees as 0


def test_a_mask_comes_back_and_what_it_hides_has_no_depth(tmp_path):
    frame = room_frames()[0]
    visible = np.ones(frame.depth.shape, bool)
    visible[:7, 3:] = False
    store = SceneStore.create(tmp_path, DatasetInfo("boxes"))
    frames = [replace(frame, visible=visible), room_frames()[1]]
    store.write("train", "room", SceneStream.of(room_cloud(), frames))
    first, second = store.read("room").frames
    assert np.array_equal(first.read_visible().numpy(), visible)
    assert np.array_equal(first.read_depth().numpy() > 0, visible)
    assert second.mask_path is None and bool((second.read_depth() > 0).all())


def test_a_colour_file_that_is_gone_is_not_taken_for_a_view_without_colour(tmp_path):
    store = SceneStore.create(tmp_path, DatasetInfo("boxes"))
    store.write("train", "room", SceneStream.of(room_cloud(), room_frames()))
    (tmp_path / "train/room/frames/color/0000.jpg").unlink()
    frame = store.read("room").frames[0]
    assert frame.has_color
    with pytest.raises(SceneError, match=r"0000\.jpg"):
        frame.read_color()


def fused(frames: list[DecodedFrame], colors) -> PreparedCloud:
    fusion = TsdfFusion(FusionSettings(0.05, 0.2, min_weight=0.0), colors=colors)
    for one in frames:
        metres = (one.depth * one.depth_scale).astype(np.float32)
        fusion.add(metres, one.color, one.intrinsics, np.linalg.inv(one.camera_to_world))
    return fusion.cloud()


def test_fusion_without_colours_has_the_surface_of_fusion_with_them():
    frames = room_frames()
    with_color, without = fused(frames, "all"), fused(colorless(frames), "none")
    assert np.array_equal(with_color.coord, without.coord)
    assert np.array_equal(with_color.normal, without.normal)
    assert without.color is None


def test_colourless_frames_do_not_darken_the_colours_of_the_others():
    frames = room_frames()
    mixed, whole = fused(colorless(frames, slice(0, None, 2)), "some"), fused(frames, "all")
    assert np.array_equal(mixed.coord, whole.coord)
    assert mixed.color is not None
    only = fused(frames[1::2], "all")
    seen = np.abs(mixed.coord[:, None] - only.coord[None, ::7]).max(axis=-1).min(axis=1) < 1e-6
    assert seen.sum() > 50  # points that a coloured frame saw have the colour of their place
    assert np.abs(mixed.color[seen].astype(int) - color_at(mixed.coord[seen])).mean() < 12


def test_a_colourless_frame_is_refused_where_colours_were_promised():
    with pytest.raises(ValueError, match="colors='some'"):
        fused(colorless(room_frames()), "all")


def test_pixels_of_views_without_colour_are_marked_through_batch_and_halves(tmp_path):
    root = write(tmp_path, colorless(room_frames(), slice(0, None, 2)), colored=True)
    data = PretrainDataset(open_folder(root), "train", pretrain_config().data)
    batch = Batch.collate([data[0, 0], data[1, 0]])
    assert batch.pixels is not None
    has_color = (batch.pixels.color > 0).any(dim=1)
    assert 0 < int(batch.pixels.colored.sum()) < len(has_color)
    assert torch.equal(batch.pixels.colored, has_color)
    parts = [half.pixels.colored for half in batch.halves() if half.pixels is not None]
    assert torch.equal(torch.cat(parts), batch.pixels.colored)


def test_depth_alone_is_trained_on_with_a_note_and_judged_by_depth(trained):
    result, heard = trained
    assert any("have depth alone" in note and "no colour loss" in note for note in heard.noted)
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    losses = [one for one in steps if "depth" in str(one)]
    assert losses and result.losses["depth"] > 0 and result.losses["sdf"] > 0
    assert "color" not in result.losses and result.training_psnr is None
    assert set(result.metrics) == {"depth_l1", "depth_median"}
    assert result.checkpoint.name == "best.pth"


def test_the_depth_losses_are_those_of_the_same_views_with_colour(tmp_path, trained):
    """Same points, same pixels, same weights at the first step: only the colours are missing."""
    frames = room_frames()
    store = write(tmp_path / "colored", frames)  # points without colour, views with it
    one = pretrain_config(steps=1, evaluate_every=0)
    with_color = pretrain.run(one, scenes=store, out=tmp_path, name="a").losses
    bare = pretrain.run(one, scenes=write(tmp_path / "b", colorless(frames)), out=tmp_path, name="b").losses
    assert with_color["color"] > 0
    for name in ("depth", "sdf", "free_space", "eikonal"):
        assert bare.get(name) == with_color.get(name)


def test_views_with_and_without_colour_are_trained_on_together(tmp_path):
    heard = Heard()
    root = write(tmp_path / "mixed", colorless(room_frames(), slice(0, None, 2)), colored=True)
    result = pretrain.run(pretrain_config(), scenes=root, out=tmp_path, report=heard)
    assert any("6 of 12 views" in note and "that of the others" in note for note in heard.noted)
    assert {"color", "depth"} <= set(result.losses)
    assert {"psnr", "depth_l1"} <= set(result.metrics)


def test_depth_alone_is_evaluated_without_inventing_a_psnr(trained, depth_alone, tmp_path):
    checkpoint = trained[0].checkpoint
    result = evaluate.run(checkpoint, scenes=depth_alone, out=tmp_path)
    assert result.metrics["depth_l1"] > 0
    assert not np.isfinite(result.metrics.get("psnr", np.nan))
    assert result.images and all(path.is_file() for path in result.images)


def test_depth_alone_is_rendered_without_colours(trained, depth_alone, tmp_path):
    heard = Heard()
    result = render.run(
        RenderConfig.model_validate({"side_by_side": True, "cameras": {"kind": "own", "stride": 3}}),
        trained[0].checkpoint,
        scene="room0",
        out=tmp_path,
        scenes=depth_alone,
        report=heard,
    )
    assert (tmp_path / "depth").is_dir() and (tmp_path / "normal").is_dir()
    assert not (tmp_path / "color").exists()
    assert any("no colours are rendered" in note for note in heard.noted)
    assert "depth_l1" in result.metrics["seen"] and "psnr" not in result.metrics["seen"]


@pytest.mark.parametrize("method", ["tsdf", "field"])
def test_depth_alone_gives_a_mesh_of_the_room_without_colours(trained, depth_alone, tmp_path, method):
    settings = {"method": method, "resolution": 64, "tsdf": {"voxel_size": 0.05, "truncation": 0.2}}
    settings |= {"refine": REFINE} if method == "field" else {"tsdf": {**settings["tsdf"], "min_weight": 0}}
    heard = Heard()
    result = reconstruct.run(
        ReconstructConfig.model_validate(settings),
        scene="room0",
        out=tmp_path / "room.ply",
        checkpoint=trained[0].checkpoint if method == "field" else None,
        scenes=depth_alone,
        report=heard,
    )
    from ponderv2.io.ply import read_ply

    ply = read_ply(tmp_path / "room.ply")
    assert result.n_faces > 100 and ply.columns("red", "green", "blue") is None
    points = np.stack([ply.vertex[axis] for axis in "xyz"], axis=1).astype(float)
    to_wall = np.minimum(np.abs(points), np.abs(points - SIZE)).min(axis=1)
    assert np.median(to_wall) < 0.03
    assert any("depth alone" in note or "no colours" in note for note in heard.noted)
