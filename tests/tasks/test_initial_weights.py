"""What fine-tuning takes over from a published file, entry by entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.errors import CheckpointError, MismatchError
from ponderv2.tasks.checkpoints import open_checkpoint
from ponderv2.tasks.initial_weights import load_encoder
from ponderv2.tasks.kinds import task_of
from ponderv2.tasks.segmentation.config import SegmentationModelConfig
from ponderv2.tasks.segmentation.model import SegmentationModel
from tests.workflows.tiny import ENCODER

NORMS = ("ScanNet", "S3DIS", "Structured3D")
ROWS = ("Structured3D", "ScanNet", "S3DIS")
LANGUAGE = {"kind": "language", "n_texts": 4, "n_channels": 8}


def model(*conditions: str, rows: tuple[str, ...] = (), **changes: object) -> SegmentationModel:
    encoder = {**ENCODER, "kind": "prompted_sparse_unet", "conditions": conditions, "context_channels": 4}
    values = {"encoder": encoder, "conditions": rows, "head": LANGUAGE, **changes}
    return SegmentationModel(SegmentationModelConfig.model_validate(values))


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A file with the published names, of three datasets in the published orders, and what is in it."""
    source = model(*NORMS, rows=ROWS)
    state = {
        name.removeprefix("head."): torch.randn_like(value) if value.is_floating_point() else value
        for name, value in source.state_dict().items()
    }
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "model.pth")
    return tmp_path / "model.pth", state


@pytest.mark.parametrize("names", [NORMS, NORMS[::-1], ("S3DIS",), ("Structured3D", "S3DIS")])
def test_normalisations_and_prompts_go_by_the_names_of_the_datasets(
    published: tuple[Path, dict[str, Tensor]], names: tuple[str, ...]
) -> None:
    path, state = published
    loaded = model(*names)
    load_encoder(task_of(loaded.config), loaded, open_checkpoint(path))
    own = loaded.state_dict()
    for number, name in enumerate(names):
        for place in ("conv_input.bn", "enc.0.block0.bn1"):
            expected = state[f"backbone.{place}.bns.{NORMS.index(name)}.running_mean"]
            assert torch.equal(own[f"backbone.{place}.bns.{number}.running_mean"], expected)
        expected = state["embedding_table.weight"][ROWS.index(name)]
        assert torch.equal(own["embedding_table.weight"][number], expected)


def test_a_dataset_that_the_file_does_not_know_is_named(published: tuple[Path, dict[str, Tensor]]) -> None:
    new = model("ScanNet", "ScanNet++")
    with pytest.raises(CheckpointError, match="not 'ScanNet\\+\\+'"):
        load_encoder(task_of(new.config), new, open_checkpoint(published[0]))


def test_texts_of_the_file_replace_orthogonal_ones_and_no_others(
    published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, state = published
    usual = model(*NORMS, rows=ROWS)
    load_encoder(task_of(usual.config), usual, open_checkpoint(path))
    assert torch.equal(usual.state_dict()["head.class_embedding"], state["class_embedding"])
    np.save(tmp_path / "texts.npy", np.eye(8, dtype=np.float32)[:4])
    embeddings = {"kind": "file", "path": str(tmp_path / "texts.npy")}
    chosen = model(*NORMS, rows=ROWS, head={**LANGUAGE, "embeddings": embeddings})
    load_encoder(task_of(chosen.config), chosen, open_checkpoint(path))
    assert torch.equal(chosen.state_dict()["head.class_embedding"], torch.eye(8)[:4])
    assert torch.equal(chosen.state_dict()["head.proj_head.weight"], state["proj_head.weight"])


def test_an_encoder_that_does_not_fit_is_refused_with_every_difference(
    published: tuple[Path, dict[str, Tensor]],
) -> None:
    encoder = {**ENCODER, "base_channels": 16}
    other = SegmentationModel(
        SegmentationModelConfig.model_validate(
            {"encoder": encoder, "head": {"n_classes": 3, "kind": "linear"}}
        )
    )
    with pytest.raises(MismatchError) as caught:
        load_encoder(task_of(other.config), other, open_checkpoint(published[0]))
    troubles = {row.trouble for row in caught.value.rows}
    assert {"missing in the file", "unexpected in the file"} <= troubles
    assert "model.encoder=null" in str(caught.value.fix)
