"""The presets of semantic segmentation against the published hyper-parameters."""

from __future__ import annotations

import pytest

from ponder_cli.presets import load_preset, shipped_presets
from ponderv2.data.augment_config import DropoutConfig, published_segmentation_augmentations
from ponderv2.datasets import vocabulary
from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.structured3d import classes as structured3d
from ponderv2.heads.config import ClassesHeadConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.workflows.config import FinetuneConfig


def preset(name: str, *set_: str) -> FinetuneConfig:
    return load_preset("finetune", name, list(set_), FinetuneConfig)


def model(name: str) -> SegmentationModelConfig:
    config = preset(name).model
    assert isinstance(config, SegmentationModelConfig)
    return config


# Drives have recipes of their own.
OTHERS = ("instance", "demo", "rooms", "lidarseg", "semantickitti", "streets")
SEMANTIC = [p.name for p in shipped_presets("finetune") if not any(one in p.name for one in OTHERS)]

# name: passes over the training scenes, scenes, scenes a step
PASSES = {
    "scannet_semantic": (800, 1201, 12),
    "scannet_semantic_scratch": (800, 1201, 12),
    "scannet200_semantic": (600, 1201, 12),
    "s3dis_semantic": (3000, 204, 12),
    "s3dis_semantic_scratch": (3000, 204, 12),
    "structured3d_semantic_scratch": (100, 18348, 12),
    "scannet_la20": (800, 1201, 12),
    "scannet_lr1": (800, 12, 12),
    "scannet_lr5": (800, 60, 12),
    "scannet_lr10": (800, 120, 12),
    "scannet_lr20": (800, 240, 12),
}


@pytest.mark.parametrize("name", PASSES)
def test_steps_are_the_published_epochs(name: str) -> None:
    passes, n_scenes, batch = PASSES[name]
    training = preset(name).training
    assert training.batch_size == batch
    assert training.steps == pytest.approx(passes * n_scenes / batch, rel=0.005)


def test_joint_steps_are_a_hundred_passes_of_the_largest_dataset() -> None:
    """A cycle is 4 + 2 + 1 steps; it ends when the 18 348 rooms of Structured3D are seen."""
    config = preset("joint_semantic")
    ratios = [part.ratio for part in config.parts]
    steps_of_largest = 18348 // 24
    cycle = steps_of_largest // ratios[0] * sum(ratios) + steps_of_largest % ratios[0]
    assert ratios == [4, 2, 1] and config.training.batch_size == 24
    assert config.training.steps == pytest.approx(100 * cycle, rel=0.005)


@pytest.mark.parametrize("name", SEMANTIC)
def test_rate_schedule_and_mixing_are_published(name: str) -> None:
    config = preset(name)
    optimiser, schedule = config.training.optimiser, config.training.schedule
    assert optimiser.kind == "sgd" and optimiser.nesterov and optimiser.momentum == 0.9
    assert optimiser.weight_decay == 1e-4 and config.data.mix_probability == 0.8
    if name == "s3dis_semantic_scratch":
        assert optimiser.rate == 0.1 and schedule.kind == "poly" and schedule.power == 0.9
        return
    assert optimiser.rate == 0.05 and schedule.kind == "one_cycle"
    assert (schedule.warmup, schedule.divide_start, schedule.divide_end) == (0.05, 10.0, 1e4)


@pytest.mark.parametrize("name", SEMANTIC)
def test_losses_are_published(name: str) -> None:
    """Cross-entropy from scratch, and Lovász beside it where a pre-trained encoder is fine-tuned."""
    plain = name.endswith("_scratch") and name != "scannet200_semantic_scratch"  # for that one none is known
    losses = model(name).losses
    assert (losses.cross_entropy, losses.lovasz) == (1.0, 0.0 if plain else 1.0)


@pytest.mark.parametrize("name", SEMANTIC)
def test_points_are_prepared_as_published(name: str) -> None:
    data = preset(name).data
    assert data.augment == published_segmentation_augmentations()
    dropout = data.augment[1]
    assert isinstance(dropout, DropoutConfig) and (dropout.ratio, dropout.probability) == (0.2, 0.2)
    if name == "s3dis_semantic_scratch":
        assert (data.voxel.size, data.features) == (0.05, ("coord", "color"))
    else:
        assert (data.voxel.size, data.features) == (0.02, ("color", "normal"))


CROPS = {
    "scannet_semantic": (100_000, None),
    "scannet200_semantic": (100_000, None),
    "s3dis_semantic": (None, 0.6),
    "s3dis_semantic_scratch": (100_000, None),
    "structured3d_semantic": (None, 0.6),
}


@pytest.mark.parametrize("name", CROPS)
def test_sphere_crops_are_published(name: str) -> None:
    crop = preset(name).data.sphere_crop
    assert crop is not None and (crop.n_points, crop.share) == CROPS[name]


def test_joint_sphere_crops_are_published() -> None:
    crops = [part.data.sphere_crop for part in preset("joint_semantic").parts]
    assert [(c.n_points, c.share) for c in crops if c] == [(None, 0.8), (100_000, None), (None, 0.6)]


CLASSES = {
    "scannet_semantic": scannet20.CLASS_NAMES,
    "scannet_language": scannet20.CLASS_NAMES,
    "scannet200_semantic": scannet200.CLASS_NAMES,
    "s3dis_semantic": s3dis.CLASS_NAMES,
    "s3dis_6fold": s3dis.CLASS_NAMES,
    "structured3d_semantic": structured3d.CLASS_NAMES,
}


@pytest.mark.parametrize("name", CLASSES)
def test_heads_have_the_classes_of_the_dataset(name: str) -> None:
    assert model(name).head.classes_of("ScanNet") == len(CLASSES[name])


def test_joint_labels_meet_the_text_of_their_own_name() -> None:
    head = model("joint_semantic").head
    assert head.kind == "language" and head.n_texts == len(vocabulary.CLASS_NAMES)
    assert head.valid_index == vocabulary.ROWS
    for name in ("Structured3D", "ScanNet", "S3DIS"):
        assert model("joint_decoupled").head.classes_of(name) == head.classes_of(name)


@pytest.mark.parametrize("name", [name for name in SEMANTIC if name.endswith("_scratch")])
def test_baselines_bring_their_encoder_and_the_others_take_that_of_the_checkpoint(name: str) -> None:
    assert model(name).encoder is not None
    assert model(name.removesuffix("_scratch")).encoder is None


def test_folds_are_made_by_two_settings() -> None:
    config = preset("s3dis_6fold", "val_split=Area_3", "train_split=[Area_1,Area_2,Area_4,Area_5,Area_6]")
    assert (config.train_split, config.val_split) == ("Area_1+Area_2+Area_4+Area_5+Area_6", "Area_3")


def test_the_precision_may_be_a_number() -> None:
    assert preset("scannet_semantic", "training.precision=32").training.precision == "32"


@pytest.mark.parametrize("share", ["", "_10percent", "_1percent"])
@pytest.mark.parametrize("start", ["", "_scratch"])
@pytest.mark.parametrize(
    ("name", "n_classes", "mix"), [("nuscenes_lidarseg", 16, 0.0), ("semantickitti_semantic", 19, 0.8)]
)
def test_drives_have_the_public_recipe(name: str, n_classes: int, mix: float, share: str, start: str) -> None:
    """Pointcept's configurations of SpUNet for drives; that of the published figures is not known."""
    config = preset(name + share + start)
    optimiser, schedule = config.training.optimiser, config.training.schedule
    assert (optimiser.kind, optimiser.rate, optimiser.weight_decay) == ("adamw", 2.0e-3, 5.0e-3)
    assert schedule.kind == "one_cycle" and schedule.warmup == 0.04
    assert config.training.batch_size == 12
    assert (config.data.voxel.size, config.data.mix_probability, config.data.centred) == (0.05, mix, False)
    losses = model(name + share + start).losses
    assert (losses.cross_entropy, losses.lovasz) == (1.0, 0.0)
    head = model(name + share + start).head
    assert isinstance(head, ClassesHeadConfig) and head.n_classes == n_classes
    assert (losses.class_weights is None) == (name == "nuscenes_lidarseg")
