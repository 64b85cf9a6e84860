"""Generated rooms shown as three datasets, and the presets that expect them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.joint_datasets import VARIANTS, VOCABULARY, rows_of, write_datasets
from ponder_cli.presets import load_preset
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.store.store import SceneStore
from ponderv2.synthetic.classes import CLASS_NAMES
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig

POINTS = 4000
A, B, C = VARIANTS


def room(number: int) -> SceneStream:
    """Grey points of all classes in turn, and one image of one class at 2 m."""
    rng = np.random.default_rng(number)
    segment = np.arange(POINTS) % len(CLASS_NAMES)
    cloud = PreparedCloud(
        rng.random((POINTS, 3)).astype(np.float32) * 3,
        np.full((POINTS, 3), 140, np.uint8),
        np.tile(np.float32([0, 0, 1]), (POINTS, 1)),
        {"segment": segment, "instance": np.arange(POINTS) // 100},
    )
    depth = np.full((24, 32), 2000, np.uint16)
    depth[0] = 0
    intrinsics = np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]])
    frame = DecodedFrame(
        "0", intrinsics, np.eye(4), np.full((24, 32, 3), 140, np.uint8), depth,
        semantic=np.full((24, 32), CLASS_NAMES.index("sofa")),
    )  # fmt: skip
    return SceneStream.of(cloud, [frame])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("joint")
    info = DatasetInfo("synthetic", CLASS_NAMES, splits=("train", "val", "test"))
    store = SceneStore.create(root / "rooms", info)
    for split, names in {"train": range(7), "val": [7], "test": [8]}.items():
        for number in names:
            store.write(split, f"room{number}", room(number))
    write_datasets(root / "rooms", root / "data")
    return root


def test_training_rooms_are_shared_out_and_the_others_are_common(folders: Path) -> None:
    found = [SceneStore.open(folders / "data" / variant.name) for variant in VARIANTS]
    rooms = [store.names("train") for store in found]
    assert [len(names) for names in rooms] == [4, 2, 1]
    assert sorted(sum(rooms, ())) == [f"room{number}" for number in range(7)]
    assert all(store.names("test") == ("room8",) and store.names("val") == ("room7",) for store in found)
    assert [store.info.name for store in found] == [variant.name for variant in VARIANTS]


def test_classes_are_renamed_in_points_and_images(folders: Path) -> None:
    for variant in VARIANTS:
        store = SceneStore.open(folders / "data" / variant.name)
        scene, before = store.read("room8", "test"), SceneStore.open(folders / "rooms").read("room8", "test")
        sofa = variant.renamed.get("sofa", "sofa")
        assert store.info.class_names[int(scene.frames[0].read_semantic()[3, 3])] == sofa
        labels = before.cloud.labels["segment"].unique().tolist()
        known = {variant.renamed.get(CLASS_NAMES[one], CLASS_NAMES[one]) for one in labels} - {""}
        seen = scene.cloud.labels["segment"]
        assert {store.info.class_names[one] for one in seen[seen >= 0].unique()} == known
        assert bool((seen < 0).any()) == ("" in variant.renamed.values())


def test_looks_differ_as_they_say(folders: Path) -> None:
    before = SceneStore.open(folders / "rooms").read("room8", "test")
    scenes = [SceneStore.open(folders / "data" / v.name).read("room8", "test") for v in VARIANTS]
    assert torch.equal(scenes[0].cloud.coord, before.cloud.coord)
    for scene, variant in zip(scenes, VARIANTS, strict=True):
        assert len(scene.cloud) / POINTS == pytest.approx(variant.look.kept, abs=0.03)
        color = scene.cloud.color
        assert color is not None
        gain = np.array(variant.look.gain)
        expected = ((140 / 127.5 * gain - 1) * variant.look.contrast + 1) * 127.5
        np.testing.assert_allclose(color.mean(dim=0), expected, atol=1.5)
        depth = scene.frames[0].read_depth()
        assert bool((depth[0] == 0).all())
        assert float(depth[1:].std()) == pytest.approx(4 * variant.look.depth_noise, rel=0.1, abs=1e-3)


def test_a_second_call_changes_nothing(folders: Path) -> None:
    path = folders / "data" / B.name / "test" / "room8" / "color.npy"
    before = path.stat().st_mtime_ns, path.read_bytes()
    write_datasets(folders / "rooms", folders / "data")
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_the_presets_expect_these_datasets() -> None:
    pretrain = load_preset("pretrain", "rooms_joint", [], PretrainConfig)
    finetune = load_preset("finetune", "rooms_joint", [], FinetuneConfig)
    assert pretrain.model.encoder == finetune.model.encoder
    for config in (pretrain, finetune):
        assert [(part.scenes.name, part.ratio) for part in config.parts] == [
            (variant.name, variant.ratio) for variant in VARIANTS
        ]
    head = finetune.model.head
    assert head.n_texts == len(VOCABULARY)
    assert head.valid_index == {variant.name: rows_of(variant) for variant in VARIANTS}
    assert [VOCABULARY[row] for row in head.valid_index[C.name]] == list(C.class_names)
