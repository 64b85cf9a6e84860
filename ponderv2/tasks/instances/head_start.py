"""The heads of PointGroup fitted to the encoder's features: class scores, and offsets to instance centres."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.collectives import single_process
from ponderv2.data.datasets import LabelledDataset
from ponderv2.evaluation.probes import LabelledRows, chosen_fit, minimise, standardisation
from ponderv2.heads.instances import instance_centres, instance_losses, instance_targets
from ponderv2.scenes.scene import PointCloud
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.tasks.head_start import describe, labelled_rows
from ponderv2.tasks.instances.model import InstancesModel
from ponderv2.training.report import Reporter

FEWEST_OFFSETS = 50
"""Points with an instance below which the head of offsets stays as it is."""
OFFSET_ITERATIONS = 200
"""Of L-BFGS. The offset loss has kinks, so that its minimum is approached rather than reached."""
OFFSET_PENALTY = 1.0e-3
"""Half of it times the squares of the weights is added to the mean loss."""


def fit_head(
    model: InstancesModel, trainings: Sequence[LabelledDataset], seed: int, report: Reporter
) -> None:
    """Class scores by logistic regression; offsets by L-BFGS on the two offset terms of the loss.

    Raises SceneError where there is no labelled point.
    """
    ignored = model.config.ignored_classes

    def targets(data: LabelledDataset, cloud: PointCloud) -> Tensor:
        segment = cloud.labels[data.label_field].long()
        instance = instance_targets(segment, cloud.labels["instance"].long(), ignored)
        offset = instance_centres(cloud.coord, instance) - cloud.coord
        return torch.cat([offset, (instance >= 0).to(offset.dtype)[:, None]], dim=1)

    each = labelled_rows(model, trainings, seed, report, targets)
    rows = LabelledRows.cat([one.rows for one in each])
    target = torch.cat([one.target for one in each if one.target is not None])
    device = next(model.parameters()).device
    chosen = chosen_fit(rows, model.classes_of(trainings[0].condition), device=device)
    with torch.no_grad():
        model.seg_head.weight.copy_(chosen.linear.weight)
        model.seg_head.bias.copy_(chosen.linear.bias)
    describe(chosen, rows, "head of classes", report)
    inside = target[:, 3] > 0
    if int(inside.sum()) < FEWEST_OFFSETS:
        report.note(f"the head of offsets starts at random: {int(inside.sum())} labelled points of instances")
        return
    with single_process():
        fitted, distance = fit_offsets(
            model.bias_head, rows.take(inside).feature.to(device), target[inside, :3].to(device)
        )
    model.bias_head.load_state_dict(fitted.state_dict())
    report.note(
        f"head of offsets fitted to {int(inside.sum())} points of instances: mean error {distance:.2f} m, "
        f"{float(target[inside, :3].abs().sum(dim=1).mean()):.2f} m without it"
    )


def fit_offsets(
    head: nn.Sequential, feature: Float[Tensor, "point channel"], offset: Float[Tensor, "point 3"]
) -> tuple[nn.Sequential, float]:
    """A fitted copy of the head, and its mean error (sum over x, y, z; scene units). Deterministic."""
    precision = torch.float32 if feature.device.type == "mps" else torch.float64
    fitted = copy.deepcopy(head).to(precision)
    rows, truth = feature.to(precision), offset.to(precision)
    mean, scale = standardisation(rows)
    rows = (rows - mean) / scale
    first, norm = fitted[0], fitted[1]
    assert isinstance(first, nn.Linear) and isinstance(norm, BatchNorm)
    norm.momentum = None
    fitted.train()
    parameters = list(fitted.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    logits, segment = truth.new_zeros(len(rows), 1), torch.full((len(rows),), -1, device=rows.device)
    inside = torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    def objective() -> Tensor:
        losses = instance_losses(logits, fitted(rows), truth, segment, inside)
        penalty = sum((one.square().sum() for one in parameters if one.ndim > 1), truth.new_zeros(()))
        return losses.offset + losses.direction + 0.5 * OFFSET_PENALTY * penalty

    minimise(parameters, objective, 1e-5, OFFSET_ITERATIONS)
    with torch.no_grad():
        norm.reset_running_stats()
        fitted(rows)
        fitted.eval()
        distance = float((fitted(rows) - truth).abs().sum(dim=1).mean())
        first.weight.copy_(first.weight / scale)
        first.bias.copy_(first.bias - first.weight @ mean)
    momentum = head[1].momentum
    assert momentum is None or isinstance(momentum, float)
    norm.momentum = momentum
    return fitted.to(feature.dtype), distance
