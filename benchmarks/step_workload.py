"""The pre-training step that is measured: published width, two generated rooms of 60,000 voxels each."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from ponder_cli.presets import load_preset
from ponderv2.data.augment_config import CentreShiftConfig
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.batch import Batch
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig, PretrainConfig
from ponderv2.workflows.training_runs import seeded_weights

N_VOXELS = 60_000
"""Per room: those nearest to its middle, of the 62,000 and 68,000 that the rooms have at 2 cm."""
ROOMS = (0, 3)
N_CLASSES = 20


def default_cache() -> Path:
    """Where the rooms stay between runs."""
    return Path(tempfile.gettempdir()) / "ponder-benchmarks" / "step-rooms"


def config() -> PretrainConfig:
    """`pretrain/scannet-official` in full precision; all voxels of a room, nothing dropped or turned."""
    official = load_preset("pretrain", "scannet-official", ["training.precision=32"], PretrainConfig)
    return official.model_copy(
        update={"data": official.data.model_copy(update={"augment": (CentreShiftConfig(),)})}
    )


def make_batch(settings: PretrainConfig, cache: Path) -> Batch:
    """Both rooms with 5 views of 640x480, 256 pixels each. Prepares the rooms where they are missing."""
    source = SyntheticConfig(
        rooms=4, val_rooms=0, frames=12, width=640, height=480, room_size=(2.2, 2.6), voxel=0.016, noise=False
    )
    prepare.run(PrepareConfig(source=source, out=cache, workers=1, check_space=False))
    data = settings.data.model_copy(update={"label_field": "segment"})
    rooms = PretrainDataset(open_folder(cache), "train", data, with_labels=True)
    return Batch.collate([_as_scannet(_cropped(rooms.sample(index, 0))) for index in ROOMS])


def make_model(settings: PretrainConfig) -> PretextModel:
    """Seeded weights, in training mode."""
    seeded_weights(settings.seed)
    return PretextModel(settings.model).train()


def _cropped(scene: Batch) -> Batch:
    away = torch.linalg.vector_norm(scene.coord - scene.coord.mean(0), dim=1)
    keep = away.argsort(stable=True)[:N_VOXELS].sort().values
    rows = {name: getattr(scene, name)[keep] for name in ("coord", "feature", "segment", "instance")}
    grid = scene.grid_coord[keep]
    return replace(scene, grid_coord=grid - grid.amin(0), offset=torch.tensor([len(keep)]), **rows)


def _as_scannet(scene: Batch) -> Batch:
    """The rooms have other classes than the model; those beyond its 20 count as unlabelled."""
    assert scene.pixels is not None
    known = torch.where(scene.pixels.label < N_CLASSES, scene.pixels.label, -1)
    segment = torch.where(scene.segment < N_CLASSES, scene.segment, -1)
    return replace(scene, condition="ScanNet", segment=segment, pixels=replace(scene.pixels, label=known))
