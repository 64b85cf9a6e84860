"""Every shipped preset is complete, says what it needs, and agrees with its partners."""

from __future__ import annotations

import pytest

from ponder_cli.presets import Preset, load_preset, preset_folder, shipped_presets
from ponderv2.workflows.config import CONFIG_OF_COMMAND, FinetuneConfig, PretrainConfig

PRESETS = shipped_presets()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: f"{preset.command}/{preset.name}")
def test_every_preset_is_accepted_and_describes_itself(preset: Preset):
    config = load_preset(preset.command, preset.name, None, CONFIG_OF_COMMAND[preset.command])
    assert config.description and config.needs and config.cost


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: f"{preset.command}/{preset.name}")
def test_a_resolved_preset_survives_writing_and_reading(preset: Preset):
    config_class = CONFIG_OF_COMMAND[preset.command]
    config = load_preset(preset.command, preset.name, None, config_class)
    assert config_class.model_validate(config.model_dump(mode="json")) == config


def test_every_command_with_settings_has_a_preset():
    assert {preset.command for preset in PRESETS} == set(CONFIG_OF_COMMAND)


def test_the_table_names_every_preset():
    table = (preset_folder() / "README.md").read_text(encoding="utf-8")
    assert all(f"`{preset.command}/{preset.name}`" in table for preset in PRESETS)


def test_the_demo_encoder_is_fine_tuned_as_it_was_pretrained():
    pretrain = load_preset("pretrain", "demo", None, PretrainConfig)
    finetune = load_preset("finetune", "demo", None, FinetuneConfig)
    if finetune.model.encoder is not None:  # else everything is that of the checkpoint
        assert finetune.model.encoder == pretrain.model.encoder
        assert (finetune.data.voxel, finetune.data.features) == (pretrain.data.voxel, pretrain.data.features)
    assert finetune.scenes == pretrain.scenes


def test_the_demo_segments_the_classes_of_the_generated_rooms():
    from ponderv2.synthetic.classes import CLASS_NAMES

    config = load_preset("finetune", "demo", None, FinetuneConfig)
    assert config.model.head.n_classes in (None, len(CLASS_NAMES))


def test_the_official_preset_keeps_the_published_behaviour():
    config = load_preset("pretrain", "scannet-official", None, PretrainConfig)
    model, field = config.model, config.model.renderer.field
    assert model.encoder.channels == (32, 64, 128, 256, 256, 128, 96, 96)
    assert model.encoder.layers == (2, 3, 4, 6, 2, 2, 2, 2)
    assert model.mask is None and model.conditions == ("ScanNet",)
    assert model.frame.cells == (128, 128, 32) and not model.lift.align_with_sampling
    assert model.projection.out_channels == 128
    assert model.renderer.limits.kind == "box" and model.renderer.clip_distance_per_scene
    assert field.gradient_in_volume_units and field.clamp_points and not field.share_volume
    assert (field.sdf.hidden, field.sdf.n_blocks, field.geometry_channels) == (128, 1, 64)
    sampler = model.renderer.sampler
    assert sampler.kind == "neus" and not sampler.normalise_points
    assert (sampler.initial.n_samples, sampler.n_importance, sampler.n_rounds) == (96, 36, 1)
    losses = model.losses
    assert (losses.color, losses.depth, losses.sdf, losses.free_space) == (10.0, 1.0, 10.0, 1.0)
    assert (losses.eikonal, losses.semantic, losses.truncation) == (0.01, 0.1, 0.05)
    assert losses.color_of_misses and not losses.supervise_class_zero
    assert model.semantic is not None and model.semantic.kind == "text"
    assert model.semantic.n_classes == 20 and not model.semantic.include_point_loss


def test_the_official_preset_has_the_published_hyper_parameters():
    config = load_preset("pretrain", "scannet-official", None, PretrainConfig)
    training, optimiser, schedule = config.training, config.training.optimiser, config.training.schedule
    assert optimiser.kind == "sgd" and optimiser.nesterov
    assert (optimiser.rate, optimiser.momentum, optimiser.weight_decay) == (2.0e-3, 0.9, 1.0e-4)
    assert schedule.kind == "one_cycle" and schedule.cycle_momentum
    assert (schedule.warmup, schedule.divide_start, schedule.divide_end) == (0.05, 10.0, 1.0e4)
    assert (training.batch_size, training.precision, training.clip_gradient) == (32, "fp16", None)
    assert (config.data.views.n_views, config.data.views.n_pixels, config.data.voxel.size) == (5, 256, 0.02)
    assert config.data.features == ("color", "normal")


CORRECTED = [
    preset.name
    for preset in shipped_presets("pretrain")
    if not preset.name.endswith("-official") and preset.name != "capture"
]


def is_corrected(lift) -> bool:
    """Whether cells are where the renderer reads them."""
    match lift.kind:
        case "densify":
            return lift.align_with_sampling and not lift.corners_are_centres
        case "fused":
            return is_corrected(lift.points) and is_corrected(lift.images)
        case _:
            return not lift.published_corners


@pytest.mark.parametrize("name", CORRECTED)
def test_plain_presets_use_the_corrected_behaviour(name):
    model = load_preset("pretrain", name, None, PretrainConfig).model
    assert is_corrected(model.lift)
    assert model.renderer.limits.kind == "volume" and not model.renderer.clip_distance_per_scene
    assert not model.renderer.field.gradient_in_volume_units and not model.renderer.field.clamp_points
    assert model.renderer.sampler.kind == "neus" and model.renderer.sampler.normalise_points
    assert model.losses.supervise_class_zero and not model.losses.color_of_misses


@pytest.mark.parametrize("preset", shipped_presets("pretrain"), ids=lambda preset: preset.name)
def test_pretraining_reads_labels_only_where_the_preset_says_so(preset: Preset):
    semantic = load_preset("pretrain", preset.name, None, PretrainConfig).model.semantic
    supervised = preset.name.removesuffix("-official").endswith("_semantic")
    published_indoors = preset.name.endswith("-official") and not preset.name.startswith("nuscenes")
    assert (semantic is not None) == (supervised or published_indoors)


JOINT = ("joint", "joint_semantic", "joint-official")


@pytest.mark.parametrize("name", JOINT)
def test_joint_presets_have_the_published_cycle_length_and_rates(name):
    from ponderv2.training.sampler import steps_of_pass

    config = load_preset("pretrain", name, None, PretrainConfig)
    datasets = [(part.scenes.name, part.ratio) for part in config.parts]
    assert datasets == [("structured3d", 4), ("scannet", 2), ("s3dis", 1)]
    assert config.parts[2].train_split == "Area_1+Area_2+Area_3+Area_4+Area_6"
    training, model = config.training, config.model
    rooms = 18348  # of Structured3D's training split
    assert training.steps == steps_of_pass(rooms * 400 // 64, (4, 2, 1))
    assert (training.batch_size, training.optimiser.rate) == (64, 0.0001 * 64 / 8)
    assert model.encoder.kind == "prompted_sparse_unet"
    assert model.encoder.conditions == ("ScanNet", "S3DIS", "Structured3D")
    assert model.encoder.norm_decouple and model.encoder.norm_adaptive and model.encoder.norm_affine
    assert not model.encoder.zero_init
    assert model.conditions == ("Structured3D", "ScanNet", "S3DIS") and model.context_channels == 256


def test_only_the_official_joint_preset_has_the_published_mistakes():
    from ponderv2.datasets.vocabulary import PUBLISHED_ROWS, ROWS

    ours, theirs = (load_preset("pretrain", name, None, PretrainConfig) for name in JOINT[1:])
    assert ours.model.semantic.valid_index == ROWS and theirs.model.semantic.valid_index == PUBLISHED_ROWS
    assert ours.model.semantic.point_head and ours.model.semantic.include_point_loss
    assert theirs.model.semantic.point_head and not theirs.model.semantic.include_point_loss
    assert theirs.training.precision == "32" and theirs.training.clip_gradient is None
    assert not theirs.model.lift.align_with_sampling and not theirs.model.renderer.sampler.normalise_points
    assert not theirs.model.losses.supervise_class_zero and theirs.model.semantic.n_classes == 36


@pytest.mark.parametrize(("name", "n_classes"), [("s3dis", 13), ("structured3d", 25)])
def test_presets_of_one_dataset_share_batch_rate_and_classes(name, n_classes):
    configs = [
        load_preset("pretrain", name + kind, None, PretrainConfig) for kind in ("", "_semantic", "-official")
    ]
    assert {config.training.batch_size for config in configs} == {64}
    assert {config.training.optimiser.rate for config in configs} == {0.0001 * 64 / 8}
    assert len({config.training.steps for config in configs}) == 1
    assert {config.model.semantic.n_classes for config in configs[1:]} == {n_classes}
    assert len({(config.scenes, config.train_split, config.val_split) for config in configs}) == 1
