"""The CenterPoint head: a 2D network on the bird's-eye view, heat maps of centres, and a box at each cell.

Yin et al. 2021. Numbers of a box as in `targets.py`; metres, the frame of the scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponderv2.collectives import global_mean
from ponderv2.geometry.box_overlap import box_rows
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.suppression import circle_nms, plane_nms
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.detection.center.config import CenterHeadConfig, CircleNmsConfig
from ponderv2.heads.detection.center.targets import Centers, Plane, centers_of, heat_map
from ponderv2.heads.detection.head import DetectionHead
from ponderv2.sparse.normalisation import BatchNorm

PRIOR = -2.19
"""Bias of the heat map: a centre is taken for unlikely (0.1) at first."""
CLIP = 1.0e-4
"""Probabilities stay this far from 0 and 1."""


@dataclass(frozen=True)
class GroupMaps:
    """What the head says of the classes of one group."""

    heat: Float[Tensor, "scene class row column"]
    """Logit of a centre."""
    code: Float[Tensor, "scene code row column"]
    """The numbers of the box at each cell."""


@dataclass(frozen=True)
class CenterOutputs:
    """Maps of all groups, and the plane that they cover."""

    groups: tuple[GroupMaps, ...]
    plane: Plane


class CenterHead(DetectionHead[CenterOutputs]):
    """Reads a volume in metres: every scene has the same range."""

    def __init__(self, config: CenterHeadConfig, in_channels: int, classes: tuple[str, ...]) -> None:
        """`in_channels`: those of a column, channels times cells above each other.

        Raises ValueError for a group of unknown classes.
        """
        super().__init__()
        self.config = config
        self.group_classes = config.numbers(classes)
        self.network = PlaneNetwork(config, in_channels)
        self.shared = _convolution(config.neck * len(config.widths), config.shared)
        self.n_code = 10 if config.velocity else 8
        self.heat = nn.ModuleList(_output(config.shared, len(group), PRIOR) for group in self.group_classes)
        self.box = nn.ModuleList(_output(config.shared, self.n_code) for _ in self.group_classes)

    def forward(self, features: PointFeatures | FeatureVolume) -> CenterOutputs:
        """Maps of all scenes. Raises ValueError for features of points."""
        if not isinstance(features, FeatureVolume):
            raise ValueError("the CenterPoint head reads a volume, not features of points")
        values = features.values
        n_scenes, channels, z, rows, columns = values.shape
        if features.last is not None:
            raise ValueError("the volume is to be complete: its last convolution was left out")
        flat = values.reshape(n_scenes, channels * z, rows, columns)
        shared = self.shared(self.network(flat)).float()
        maps = [GroupMaps(heat(shared), box(shared)) for heat, box in zip(self.heat, self.box, strict=True)]
        return CenterOutputs(tuple(maps), plane_of(features))

    def losses(self, outputs: CenterOutputs, boxes: Sequence[Boxes]) -> Mapping[str, Float[Tensor, ""]]:
        """`heat` and `box`, each the sum of its groups."""
        of_heat, of_box = [], []
        for maps, group in zip(outputs.groups, self.group_classes, strict=True):
            config = self.config
            centers = centers_of(list(boxes), group, outputs.plane, config.overlap, config.min_radius)
            target = heat_map(centers, len(boxes), len(group), outputs.plane)
            of_heat.append(center_focal_loss(maps.heat, target))
            of_box.append(self._box_loss(maps.code, centers))
        return {"heat": torch.stack(of_heat).sum(), "box": torch.stack(of_box).sum()}

    def _box_loss(self, code: Float[Tensor, "scene code row column"], centers: Centers) -> Float[Tensor, ""]:
        found = code[centers.scene, :, centers.row, centers.column]
        wanted = centers.code[:, : self.n_code]
        known = ~wanted.isnan()
        error = (found - wanted.nan_to_num()).abs() * known
        weight = error.new_ones(self.n_code)
        weight[8:] = self.config.velocity_weight
        count = error.new_tensor(float(len(error)))
        return self.config.box_weight * global_mean((error * weight).sum(), count)

    @torch.no_grad()
    def decode(self, outputs: CenterOutputs) -> list[Detections]:
        """Boxes of each scene, the surest first."""
        n_scenes = len(outputs.groups[0].heat)
        return [self._decode_scene(outputs, scene) for scene in range(n_scenes)]

    def _decode_scene(self, outputs: CenterOutputs, scene: int) -> Detections:
        parts = [
            self._decode_group(maps, outputs.plane, scene, number)
            for number, maps in enumerate(outputs.groups)
        ]
        boxes = [part.boxes for part in parts]
        everything = Detections(
            Boxes(
                center=torch.cat([one.center for one in boxes]),
                size=torch.cat([one.size for one in boxes]),
                yaw=torch.cat([one.yaw for one in boxes]),
                velocity=torch.cat([one.velocity for one in boxes]),
                category=torch.cat([one.category for one in boxes]),
                instance=torch.cat([one.instance for one in boxes]),
            ),
            torch.cat([part.score for part in parts]),
        )
        return everything.best(len(everything))

    def _decode_group(self, maps: GroupMaps, plane: Plane, scene: int, number: int) -> Detections:
        config = self.config
        heat = maps.heat[scene].float().sigmoid()
        score, index = heat.flatten().topk(min(config.max_centers, heat.numel()))
        sure = score > config.min_score
        score, index = score[sure], index[sure]
        category, cell = index // (plane.rows * plane.columns), index % (plane.rows * plane.columns)
        row, column = cell // plane.columns, cell % plane.columns
        code = maps.code[scene, :, row, column].T.float()
        boxes = boxes_of_code(code, row, column, plane)
        labels = torch.tensor(self.group_classes[number], device=score.device)
        boxes = Boxes(boxes.center, boxes.size, boxes.yaw, boxes.velocity, labels[category], boxes.instance)
        rows = box_rows(boxes)
        if isinstance(config.nms, CircleNmsConfig):
            kept = circle_nms(rows, score, config.nms.radii[number], at_most=config.max_boxes)
        else:
            kept = plane_nms(rows, score, config.nms.max_iou, at_most=config.max_boxes)
        return Detections(boxes.take(kept), score[kept])


class PlaneNetwork(nn.Module):
    """Stages of 3x3 convolutions, each brought back to the resolution of the first, side by side (SECOND)."""

    def __init__(self, config: CenterHeadConfig, in_channels: int) -> None:
        super().__init__()
        stages, necks = [], []
        for number, (width, layers) in enumerate(zip(config.widths, config.layers, strict=True)):
            first = _convolution(in_channels, width, stride=1 if number == 0 else 2)
            stages.append(nn.Sequential(first, *(_convolution(width, width) for _ in range(layers - 1))))
            necks.append(_back(width, config.neck, 2**number))
            in_channels = width
        self.stages, self.necks = nn.ModuleList(stages), nn.ModuleList(necks)

    def forward(self, x: Float[Tensor, "scene in row column"]) -> Float[Tensor, "scene out row column"]:
        """The stages side by side, as large as the input."""
        size, found = x.shape[2:], []
        for stage, neck in zip(self.stages, self.necks, strict=True):
            x = stage(x)
            found.append(neck(x)[:, :, : size[0], : size[1]])
        return torch.cat(found, dim=1)


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        BatchNorm(out_channels, eps=1.0e-3, momentum=0.01),
        nn.ReLU(),
    )


def _back(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """To the resolution before `stride`, a little larger where that is no multiple."""
    layer = (
        nn.Conv2d(in_channels, out_channels, 1, bias=False)
        if stride == 1
        else nn.ConvTranspose2d(in_channels, out_channels, stride, stride=stride, bias=False)
    )
    return nn.Sequential(layer, BatchNorm(out_channels, eps=1.0e-3, momentum=0.01), nn.ReLU())


def _output(channels: int, out_channels: int, bias: float = 0.0) -> nn.Sequential:
    last = nn.Conv2d(channels, out_channels, 3, padding=1)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(_convolution(channels, channels), last)


def plane_of(volume: FeatureVolume) -> Plane:
    """The bird's-eye view of a volume whose scenes have one range.

    Raises ValueError where the ranges of scenes differ.
    """
    lower, upper = volume.lower.double(), volume.upper.double()
    if bool((lower != lower[:1]).any()) or bool((upper != upper[:1]).any()):
        raise ValueError("all scenes must have one range: frame {kind: range}")
    rows, columns = volume.values.shape[3:]
    counts = lower.new_tensor([columns, rows])
    low, high = lower[0, :2], upper[0, :2]
    if volume.corners_are_centres:
        cell = (high - low) / (counts - 1)
        low = low - cell / 2
    else:
        cell = (high - low) / counts
    return Plane((float(low[0]), float(low[1])), (float(cell[0]), float(cell[1])), columns, rows)


def center_focal_loss(
    logits: Float[Tensor, "scene class row column"], target: Float[Tensor, "scene class row column"]
) -> Float[Tensor, ""]:
    """Focal loss of CornerNet (Law and Deng 2018, equation 1) with alpha 2 and beta 4, divided by the number
    of centres of all processes, at least 1."""
    probability = logits.float().sigmoid().clamp(CLIP, 1.0 - CLIP)
    is_center = target == 1.0
    hit = (1.0 - probability).square() * probability.log() * is_center
    other = probability.square() * (1.0 - probability).log() * (1.0 - target).pow(4) * ~is_center
    return -global_mean((hit + other).sum(), is_center.sum().to(probability.dtype))


def boxes_of_code(
    code: Float[Tensor, "box code"],
    row: Int[Tensor, " box"],
    column: Int[Tensor, " box"],
    plane: Plane,
) -> Boxes:
    """The boxes that the numbers at some cells say; of class 0. Without velocities these are nan."""
    place = torch.stack([column, row], dim=1) + code[:, :2]
    xy = code.new_tensor(plane.lower) + place * code.new_tensor(plane.cell)
    velocity = code.new_full((len(code), 3), torch.nan)
    if code.shape[1] == 10:
        velocity[:, :2], velocity[:, 2] = code[:, 8:], 0.0
    zeros = torch.zeros_like(row)
    return Boxes(
        center=torch.cat([xy, code[:, 2:3]], dim=1),
        size=code[:, 3:6].clamp(max=6.0).exp(),
        yaw=torch.atan2(code[:, 6], code[:, 7]),
        velocity=velocity,
        category=zeros,
        instance=zeros - 1,
    )
