"""Heads of point prompt training and the published last layer."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from ponderv2.datasets.vocabulary import ROWS
from ponderv2.heads.config import (
    DecoupledHeadConfig,
    FinalHeadConfig,
    LanguageHeadConfig,
    LinearHeadConfig,
)
from ponderv2.heads.kinds import HeadConfig, build_head
from ponderv2.heads.language import LanguageHead

LANGUAGE = LanguageHeadConfig(n_texts=4, n_channels=5, valid_index={"a": (2, 0), "b": (1, 3, 2)})


def test_language_scores_are_a_hundred_cosines_written_out(rng: torch.Generator) -> None:
    head = build_head(LANGUAGE, 6)
    assert isinstance(head, LanguageHead)
    head.requires_grad_(False)
    feature = torch.randn(3, 6, generator=rng)
    scores = head(feature, "b").detach()
    for i in range(3):
        projected = [
            sum(float(head.proj_head.weight[c, k]) * float(feature[i, k]) for k in range(6))
            + float(head.proj_head.bias[c])
            for c in range(5)
        ]
        length = math.sqrt(sum(value * value for value in projected))
        for label, row in enumerate((1, 3, 2)):
            text = head.class_embedding[row].tolist()
            cosine = sum(x * y for x, y in zip(projected, text, strict=True)) / length
            assert float(scores[i, label]) == pytest.approx(100.0 * cosine, abs=1e-4)


def test_language_head_has_the_published_names_and_trains_the_projection_alone() -> None:
    head = build_head(LanguageHeadConfig(n_texts=36), 96)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        "logit_scale": (),
        "class_embedding": (36, 512),
        "proj_head.weight": (512, 96),
        "proj_head.bias": (512,),
    }
    assert {name for name, p in head.named_parameters() if p.requires_grad} == {
        "proj_head.weight",
        "proj_head.bias",
    }


def test_a_dataset_that_is_not_named_uses_all_texts(rng: torch.Generator) -> None:
    assert build_head(LANGUAGE, 6)(torch.randn(2, 6, generator=rng), "c").shape == (2, 4)
    assert LANGUAGE.classes_of("a") == 2 and LANGUAGE.classes_of("c") == 4


@pytest.mark.parametrize("condition", ["ScanNet", "S3DIS", "Structured3D"])
def test_labels_of_the_published_datasets_meet_their_texts(condition: str) -> None:
    rows = {name: tuple(index) for name, index in ROWS.items()}
    config = LanguageHeadConfig(n_texts=36, valid_index=rows)
    assert config.classes_of(condition) == {"ScanNet": 20, "S3DIS": 13, "Structured3D": 25}[condition]


def test_texts_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValidationError, match="rows 0 to 3"):
        LanguageHeadConfig(n_texts=4, valid_index={"a": (0, 4)})
    with pytest.raises(ValidationError, match="give their number"):
        LanguageHeadConfig(valid_index={"a": (0,)})


def test_decoupled_heads_are_the_linear_layer_of_their_dataset(rng: torch.Generator) -> None:
    head = build_head(DecoupledHeadConfig(), 96)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert [shapes[f"seg_heads.{i}.weight"] for i in range(3)] == [(25, 96), (20, 96), (13, 96)]
    feature = torch.randn(4, 96, generator=rng)
    layer = head.seg_heads[1]
    torch.testing.assert_close(head(feature, "ScanNet"), feature @ layer.weight.T + layer.bias)
    with pytest.raises(ValueError, match="'Rooms'"):
        head(feature, "Rooms")


def test_the_final_layer_reads_the_memory_of_its_weight_as_channel_by_class(rng: torch.Generator) -> None:
    """Element (c, k) of the matrix is number c * n_classes + k of the stored [class, 1, 1, 1, channel]."""
    head = build_head(FinalHeadConfig(n_classes=3), 4)
    with torch.no_grad():
        head.final.weight.copy_(torch.randn(3, 1, 1, 1, 4, generator=rng))
        head.final.bias.copy_(torch.randn(3, generator=rng))
    feature = torch.randn(2, 4, generator=rng)
    stored, scores = head.final.weight.flatten().tolist(), head(feature)
    for i in range(2):
        for k in range(3):
            expected = sum(float(feature[i, c]) * stored[c * 3 + k] for c in range(4)) + float(
                head.final.bias[k]
            )
            assert float(scores[i, k]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("config", get_args(get_args(HeadConfig)[0]))
def test_every_head_takes_features_and_a_dataset(config, rng: torch.Generator) -> None:
    head = build_head(config().with_classes("Rooms", 7), 6)
    assert head(torch.randn(5, 6, generator=rng), "Rooms").shape == (5, 7)
    assert LinearHeadConfig().classes_of("Rooms") is None
