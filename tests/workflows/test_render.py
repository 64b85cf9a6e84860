"""Rendering a small room through the workflow: files, metrics, videos, refined scenes, mistakes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.io.images import read_color, read_integers
from ponderv2.models.pretext import PretextModel
from ponderv2.training.checkpoint import Checkpoint, save_checkpoint
from ponderv2.workflows import reconstruct, render
from ponderv2.workflows.config import PretrainConfig, ReconstructConfig, RenderConfig
from tests.scenes.closed_form_room import room_frames, write_store
from tests.workflows.tiny import pretrain_config, rooms

REFINE = {
    "steps": 120,
    "n_rays": 512,
    "cell": 0.1,
    "coarse_factor": 3,
    "detail_cell": None,
    "truncation": 0.15,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return rooms(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained model: what it renders is meaningless, but it renders."""
    torch.manual_seed(0)
    config = pretrain_config()
    path = tmp_path_factory.mktemp("run") / "model.pth"
    model = PretextModel(config.model)
    save_checkpoint(path, Checkpoint("pretext", config.model_dump(mode="json"), model.state_dict()))
    return path


def config(**values) -> RenderConfig:
    return RenderConfig.model_validate(values)


def test_every_kind_of_picture_is_written_for_every_camera(store, checkpoint, tmp_path):
    result = render.run(
        config(side_by_side=True, video="gif"), checkpoint, scene="room0", out=tmp_path / "f", scenes=store
    )
    names = [f"{index:04d}.png" for index in range(6)]
    for kind in ("color", "depth", "depth_color", "normal", "side_by_side"):
        assert sorted(path.name for path in (tmp_path / "f" / kind).iterdir()) == names
    assert not (tmp_path / "f" / "semantic").exists()
    assert read_color(tmp_path / "f" / "side_by_side" / "0000.png").shape == (24, 4 * 32, 3)
    assert read_integers(tmp_path / "f" / "depth" / "0000.png").shape == (24, 32)
    assert result.video is not None and result.video.is_file()
    assert set(result.metrics) == {"held_out", "seen"}
    assert [row["held_out"] for row in result.views] == [False] * 4 + [True] * 2
    assert asdict(result)["n_images"] == 6


def test_the_real_picture_stands_first_in_side_by_side(store, checkpoint, tmp_path):
    frame = open_folder(store).read("room0").frames[0]
    cameras = {"kind": "own", "stride": 6}
    render.run(
        config(side_by_side=True, cameras=cameras), checkpoint, scene="room0", out=tmp_path, scenes=store
    )
    beside = read_color(tmp_path / "side_by_side" / "0000.png")
    assert np.array_equal(beside[:, :32], frame.read_color().numpy())


def test_a_camera_path_of_nerfstudio_gives_the_cameras_and_the_speed_of_the_video(
    store, checkpoint, tmp_path
):
    frame = open_folder(store).read("room0").frames[1]
    pose = torch.linalg.inv(frame.camera.world_to_camera.double()).numpy()
    one = {"camera_to_world": (pose @ np.diag([1.0, -1, -1, 1])).ravel().tolist(), "fov": 50, "aspect": 1.33}
    path = {"camera_type": "perspective", "render_height": 12, "render_width": 16, "fps": 10, "seconds": 0.2}
    (tmp_path / "camera_path.json").write_text(
        json.dumps({**path, "keyframes": [], "camera_path": [one, one]})
    )
    cameras = {"kind": "file", "path": tmp_path / "camera_path.json"}
    out = tmp_path / "f"
    result = render.run(
        config(cameras=cameras, images=("color",), video="gif"),
        checkpoint, scene="room0", out=out, scenes=store,
    )  # fmt: skip
    assert result.n_images == 2 and read_color(out / "color" / "0000.png").shape == (12, 16, 3)
    written = json.loads((out / "cameras.json").read_text())["frames"]
    assert np.allclose(written[1]["camera_to_world"], pose, atol=1e-5)
    assert result.video is not None
    video = ImageSequence.Iterator(Image.open(result.video))
    assert sum(one.info["duration"] for one in video) == 200  # equal images may be one


def test_refined_views_come_near_the_frames_and_the_file_renders_the_same(store, checkpoint, tmp_path):
    cameras = {"kind": "own", "stride": 2}
    first = render.run(
        config(refine=REFINE, cameras=cameras), checkpoint, scene="room0", out=tmp_path / "a", scenes=store
    )
    assert first.refined is not None and first.refine_steps == 120
    assert first.metrics["seen"]["psnr"] > 20.0
    assert first.metrics["seen"]["depth_l1"] < 0.05
    assert first.metrics["seen"]["normal_error"] < 15.0
    again = render.run(
        config(cameras=cameras), first.refined, scene="room0", out=tmp_path / "b", scenes=store
    )
    assert again.metrics == first.metrics


def test_held_out_frames_alone_and_smaller(store, checkpoint, tmp_path):
    cameras = {"kind": "own", "only": "held_out"}
    result = render.run(
        config(cameras=cameras, width=16, images=["color"]),
        checkpoint,
        scene="room0",
        out=tmp_path,
        scenes=store,
    )
    assert set(result.metrics) == {"held_out"}
    assert read_color(tmp_path / "color" / "0004.png").shape == (12, 16, 3)
    assert not (tmp_path / "depth").exists()


@pytest.mark.parametrize("kind", ["interpolated", "orbit"])
def test_paths_without_frames_have_no_metrics(store, checkpoint, tmp_path, kind):
    result = render.run(
        config(cameras={"kind": kind, "n_frames": 3}, images=["depth"], side_by_side=True),
        checkpoint,
        scene="room0",
        out=tmp_path,
        scenes=store,
    )
    assert result.n_images == 3 and not result.views and not result.metrics
    file = {"kind": "file", "path": str(tmp_path / "cameras.json")}
    again = render.run(
        config(cameras=file, images=["depth"]),
        checkpoint,
        scene="room0",
        out=tmp_path / "again",
        scenes=store,
    )
    assert again.n_images == 3
    for name in ("0000", "0001", "0002"):
        first, second = (
            read_integers(folder / "depth" / f"{name}.png") for folder in (tmp_path, tmp_path / "again")
        )
        assert np.abs(first.astype(int) - second.astype(int)).max() <= 1


def test_a_refined_scene_of_another_room_is_refused(store, checkpoint, tmp_path):
    short = {**REFINE, "steps": 1}
    first = render.run(
        config(refine=short, cameras={"kind": "own", "stride": 6}),
        checkpoint,
        scene="room0",
        out=tmp_path,
        scenes=store,
    )
    assert first.refined is not None
    with pytest.raises(CheckpointError, match="room0"):
        render.run(config(), first.refined, scene="room1", out=tmp_path, scenes=store)


def test_unknown_scenes_and_checkpoints_are_named(store, checkpoint, tmp_path):
    with pytest.raises(SceneError, match="no scene 'attic'"):
        render.run(config(), checkpoint, scene="attic", out=tmp_path, scenes=store)
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        render.run(config(), tmp_path / "none.pth", scene="room0", out=tmp_path, scenes=store)


def test_images_are_the_same_when_memory_is_scarce(store, checkpoint, tmp_path, monkeypatch):
    from ponderv2.renderer.renderer import Renderer

    cameras = {"kind": "own", "stride": 6}
    render.run(config(cameras=cameras), checkpoint, scene="room0", out=tmp_path / "a", scenes=store)
    plain = Renderer._render

    def scarce(self, prepared, rays, *rest):
        if len(rays) > 200:
            raise MemoryError
        return plain(self, prepared, rays, *rest)

    monkeypatch.setattr(Renderer, "_render", scarce)
    render.run(config(cameras=cameras), checkpoint, scene="room0", out=tmp_path / "b", scenes=store)
    pair = [read_color(tmp_path / folder / "color" / "0000.png").astype(int) for folder in ("a", "b")]
    assert np.abs(pair[0] - pair[1]).max() <= 1


def two_cameras(folder: Path) -> Path:
    """A room of cameras `left` and `right`, in turn; the last of each is held out."""
    frames = [replace(one, sensor=("left", "right")[i % 2]) for i, one in enumerate(room_frames())]
    write_store(folder, n_scenes=1, n_points=600, frames=frames)
    return folder


def test_cameras_are_held_out_as_the_data_set_of_a_scene_says(tmp_path, monkeypatch):
    """Of a joint run, in images and meshes; in unknown folders those that any of its data sets held out."""
    one, two, other, moved = (two_cameras(tmp_path / name) for name in ("one", "two", "other", "copy/one"))
    settings = pretrain_config().model_dump(mode="json")
    settings["data"]["held_out_sensors"] = ["left"]
    own = {"held_out_sensors": ["right"]}
    settings["datasets"] = [{"scenes": str(one), "data": own}, {"scenes": str(two), "data": {}}]
    joint = PretrainConfig.model_validate(settings)
    path = tmp_path / "model.pth"
    state = PretextModel(joint.model).state_dict()
    save_checkpoint(path, Checkpoint("pretext", joint.model_dump(mode="json"), state))

    class ReadError(Exception):
        pass

    def read(checkpoint, scene, *rest):
        raise ReadError(scene)

    expected = {one: {"right"}, moved: {"right"}, two: {"left"}, other: {"left", "right"}}
    for module, settings in ((render, RenderConfig()), (reconstruct, ReconstructConfig())):
        monkeypatch.setattr(module, "open_field", read)
        for folder, sensors in expected.items():
            with pytest.raises(ReadError) as caught:
                module.run(settings, checkpoint=path, scene="room0", out=tmp_path / "m.ply", scenes=folder)
            found = [frame for frame in caught.value.args[0].frames if int(frame.id) < 4]
            assert {frame.sensor for frame in found if frame.held_out} == sensors
            assert {frame.sensor for frame in found if not frame.held_out} == {"left", "right"} - sensors
