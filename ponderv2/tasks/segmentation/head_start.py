"""The head of segmentation as a converged linear probe of the encoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ponderv2.data.datasets import LabelledDataset
from ponderv2.evaluation.probes import LabelledRows, chosen_fit
from ponderv2.heads.language import DecoupledHead, LanguageHead
from ponderv2.heads.semantic import LinearHead
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.tasks.head_start import HeadRows, describe, labelled_rows, take_statistics
from ponderv2.tasks.segmentation.model import SegmentationModel
from ponderv2.training.report import Reporter


def fit_head(
    model: SegmentationModel, trainings: Sequence[LabelledDataset], seed: int, report: Reporter
) -> None:
    """Logistic regression on labelled points of the training scenes becomes the head.

    One for all datasets where they share the head (each point competes among the classes of its dataset), one
    per dataset where each has a layer. Raises SceneError where there is no labelled point.
    """
    each = labelled_rows(model, trainings, seed, report)
    device = next(model.parameters()).device
    head = model.head
    if isinstance(head, DecoupledHead):
        for one in each:
            name = model.prompts.name(one.data.condition)
            chosen = chosen_fit(one.rows, model.classes_of(one.data.condition), device=device)
            head.start_as(chosen.linear.weight, chosen.linear.bias, name)
            describe(chosen, one.rows, f"head of {name}", report)
        return
    if isinstance(head, LanguageHead):
        rows = LabelledRows.cat(
            [_as_texts(head, model.prompts.name(one.data.condition), one) for one in each]
        )
        n_classes = len(head.class_embedding)
    else:
        rows = LabelledRows.cat([one.rows for one in each])
        n_classes = model.classes_of(trainings[0].condition)
    if isinstance(head, LinearHead) and isinstance(head.norm, BatchNorm):
        take_statistics(head.norm, rows)
    chosen = chosen_fit(rows, n_classes, device=device)
    head.start_as(chosen.linear.weight, chosen.linear.bias)
    describe(chosen, rows, "head", report)


def _as_texts(head: LanguageHead, condition: str, one: HeadRows) -> LabelledRows:
    """Labels as rows of the texts, and which texts a dataset has."""
    n_texts = len(head.class_embedding)
    index = torch.tensor(head.config.valid_index.get(condition, tuple(range(n_texts))))
    rivals = torch.zeros(n_texts, dtype=torch.bool)
    rivals[index] = True
    return replace(
        one.rows, label=index[one.rows.label], rivals=rivals.expand(len(one.rows), n_texts).contiguous()
    )
