"""Features of the voxels of a cloud by a trained encoder, block by block where memory asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.collectives import group_size
from ponderv2.data.config import PointDataConfig
from ponderv2.data.crops import Block, batch_of_block, overlapping_blocks
from ponderv2.data.preprocess import clipped, preprocess, whole_scene_shift
from ponderv2.errors import CheckpointError, ResourceError, SceneError
from ponderv2.models.encoder_model import EncoderModel, rows_of_points
from ponderv2.out_of_memory import in_smaller_parts
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.origin import far_groups
from ponderv2.scenes.scene import PointCloud, Scene

MOST_VOXELS = 2_000_000
FEWEST_VOXELS = 20_000
OVERLAP = 2.0
"""Overlap (context) around each block, metres."""
MOST_CELLS = 2**20
"""Voxels along an axis: 20 km of 2 cm. More of them cannot be numbered, nor are they metres."""
SPACING_POINTS = 2000
"""Points from which the spacing of a cloud is measured."""
SPREAD = 1024
"""Voxels between points that are encoded alone: beyond the receptive field of any encoder."""


@dataclass(frozen=True)
class BlockSettings:
    """When and how a cloud is cut."""

    voxels: int | None = None
    """Most voxels at once; None: what fits into half of the free memory."""
    overlap: float = OVERLAP
    """Context around each block, metres."""


@dataclass(frozen=True)
class VoxelFeatures:
    """One feature for every occupied voxel, or for those asked for, and the way back to the points."""

    coord: Float[Tensor, "voxel 3"]
    """The point that represents the voxel, in the frame of the cloud."""
    feature: Float[Tensor, "voxel channel"]
    inverse: Int[Tensor, " point"]
    """Voxel of every point; -1 where it was not asked for."""
    n_blocks: int

    def of_points(self) -> Float[Tensor, "point channel"]:
        """The feature of every point of the cloud."""
        return self.feature[self.inverse]

    def spacing(self) -> float:
        """Median distance of a voxel's point to that of the nearest other voxel, metres; 0 for one voxel.

        Less than a voxel for dense clouds, the distance of neighbouring points for coarse ones.
        """
        from scipy.spatial import KDTree

        if len(self.coord) < 2:
            return 0.0
        coord = self.coord.numpy()
        some = coord[:: max(1, len(coord) // SPACING_POINTS)]
        return float(np.median(KDTree(coord).query(some, k=2)[0][:, 1]))


@torch.no_grad()
def encode_voxels(
    model: EncoderModel,
    cloud: PointCloud,
    data: PointDataConfig,
    condition: str,
    blocks: BlockSettings = BlockSettings(),
    each_block: Callable[[float], None] | None = None,
    only: Int[Tensor, " chosen"] | None = None,
) -> VoxelFeatures:
    """Encoder features of a cloud, metres, z up. The model is in evaluation mode; results are on the CPU.

    Points far from all others are encoded apart from them, so that the others do not depend on them.

    Args:
        model: Its encoder is used.
        cloud: At least one point.
        data: How points become voxels.
        condition: Prompt of the data set.
        blocks: When and how the cloud is cut.
        each_block: Receives the share of the cloud that a block finished, 0..1.
        only: Points whose voxels are asked for, at least one. Blocks without them are not encoded and nothing
            else is kept: the memory does not grow with the features of the cloud.

    Raises:
        SceneError: the cloud is so large, in voxels, that it cannot be in metres.
        ResourceError: not even small blocks fit into memory.
        CheckpointError: the encoder takes other features than the settings give.
    """
    groups, singles = far_groups(cloud.coord.numpy())
    if len(groups) == 1 and not len(singles):
        return _encode_group(model, cloud, data, condition, blocks, each_block, only)
    asked = torch.ones(len(cloud), dtype=torch.bool)
    if only is not None:
        asked = torch.zeros_like(asked).index_fill_(0, only, True)
    inverse = torch.full((len(cloud),), -1)
    found: list[VoxelFeatures] = []
    index: list[Tensor] = []
    n_voxels = 0
    for number, group in enumerate([*groups, singles]):
        members = torch.from_numpy(group)
        chosen = torch.nonzero(asked[members])[:, 0]
        if not len(chosen):
            continue
        part = cloud.take(members)
        part = _spread(part, data.voxel.size) if number == len(groups) else part
        encoded = _encode_group(model, part, data, condition, blocks, only=None if only is None else chosen)
        known = torch.nonzero(encoded.inverse >= 0)[:, 0]
        inverse[members[known]] = encoded.inverse[known] + n_voxels
        index.append(members[known[_first_of_each(encoded.inverse[known], len(encoded.feature))]])
        n_voxels += len(encoded.feature)
        found.append(encoded)
    feature = torch.cat([part.feature for part in found])
    return VoxelFeatures(cloud.coord[torch.cat(index)], feature, inverse, sum(p.n_blocks for p in found))


def _encode_group(
    model: EncoderModel,
    cloud: PointCloud,
    data: PointDataConfig,
    condition: str,
    blocks: BlockSettings,
    each_block: Callable[[float], None] | None = None,
    only: Int[Tensor, " chosen"] | None = None,
) -> VoxelFeatures:
    """Points that share a grid."""
    extent = float((cloud.coord.amax(dim=0) - cloud.coord.amin(dim=0)).amax())
    if extent > MOST_CELLS * data.voxel.size:
        raise SceneError(
            f"the cloud is {extent:.6g} m long: more than {MOST_CELLS} voxels of {data.voxel.size:g} m",
            fix="--scale 0.001 if its unit is the millimetre; or remove points that are far away",
        )
    scene = clipped(Scene("cloud", cloud), data)
    scene = scene.moved(whole_scene_shift(scene.cloud.coord, data))
    done = preprocess(scene, data, condition, "none")
    encoder = model.encoder_config
    if encoder.needs != "points":
        raise CheckpointError(
            f"the encoder ({encoder.kind}) sees images, and a cloud has none",
            fix="give a checkpoint of an encoder of points",
        )
    wanted = encoder.in_channels
    if wanted != done.batch.feature.shape[1]:
        raise CheckpointError(
            f"the encoder takes {wanted} numbers per point, {', '.join(data.features)} "
            f"are {done.batch.feature.shape[1]}",
            fix="give a checkpoint of an indoor encoder",
        )
    device = next(model.parameters()).device
    limit = blocks.voxels or _fitting_voxels(device, encoder.bytes_per_voxel)
    margin = max(round(blocks.overlap / data.voxel.size), 0)
    index, inverse = done.voxels.index, done.voxels.inverse
    asked = torch.arange(len(index)) if only is None else torch.unique(inverse[only])
    row = torch.full((len(index),), -1).index_copy_(0, asked, torch.arange(len(asked)))
    feature, n_blocks = _in_blocks(model, done.batch, row, (limit, margin, encoder.grid_multiple), each_block)
    return VoxelFeatures(cloud.coord[index[asked]], feature, row[inverse], n_blocks)


def _spread(cloud: PointCloud, size: float) -> PointCloud:
    """Isolated points, each in the middle of a voxel, out of the receptive fields of one another."""
    side = math.isqrt(len(cloud) - 1) + 1
    row, column = torch.arange(len(cloud)) // side, torch.arange(len(cloud)) % side
    cell = torch.stack([row * SPREAD, column * SPREAD, torch.zeros_like(row)], dim=1)
    return replace(cloud, coord=((cell + 0.5) * size).to(cloud.coord.dtype))


def _first_of_each(inverse: Tensor, n_voxels: int) -> Tensor:
    """One point of every voxel."""
    first = torch.full((n_voxels,), len(inverse))
    return first.scatter_reduce_(0, inverse, torch.arange(len(inverse)), reduce="amin")


def _in_blocks(
    model: EncoderModel,
    batch: Batch,
    row: Int[Tensor, " voxel"],
    size: tuple[int, int, int],
    each_block: Callable[[float], None] | None,
) -> tuple[Tensor, int]:
    """Block by block; with smaller blocks where memory runs out.

    `row`: of the result, for every voxel; -1 for those that are not asked for. `size`: voxels of a block,
    cells of the context around it, and what its place is a multiple of.
    """
    limit, margin, alignment = size
    device = next(model.parameters()).device

    def encode(block: Block) -> Tensor:
        part = (
            batch if len(block.context) == len(batch.grid_coord) else batch_of_block(batch, block, alignment)
        )
        return rows_of_points(model.encode(part.to(device))).float().cpu()

    def split(block: Block, error: BaseException) -> list[Block]:
        return [part for part in _smaller(batch, block, margin, error) if is_asked(part)]

    def is_asked(block: Block) -> bool:
        return bool((row[block.core] >= 0).any())

    result: Tensor | None = None
    n_blocks = 0
    blocks = filter(is_asked, overlapping_blocks(batch.grid_coord, limit, margin))
    for block, feature in in_smaller_parts(encode, blocks, split):
        if result is None:
            result = feature.new_empty(int(row.max()) + 1, feature.shape[1])
        kept = block.core[row[block.core] >= 0]
        result[row[kept]] = feature[torch.searchsorted(block.context, kept)]
        n_blocks += 1
        if each_block is not None:
            each_block(len(block.core) / len(batch.grid_coord))
    assert result is not None
    return result, n_blocks


def _smaller(batch: Batch, block: Block, margin: int, error: BaseException) -> list[Block]:
    """The block in parts of at most half its size. Raises ResourceError where that is impossible."""
    limit = len(block.context) // 2
    cells = batch.grid_coord[block.core]
    parts = overlapping_blocks(cells, limit, margin) if limit >= FEWEST_VOXELS else []
    if len(parts) < 2:
        raise ResourceError(
            f"out of memory encoding {len(block.context)} voxels at once",
            fix="--overlap 0.5, --scale if the units are not metres, or a machine with more memory",
        ) from error
    around = batch.grid_coord[block.context]
    return [
        Block(block.core[part.core], block.context[_near(around, cells[part.core], margin)]) for part in parts
    ]


def _near(cells: Tensor, core: Tensor, margin: int) -> Tensor:
    lower, upper = core.amin(dim=0) - margin, core.amax(dim=0) + margin
    return ((cells >= lower) & (cells <= upper)).all(dim=1)


def _fitting_voxels(device: torch.device, bytes_per_voxel: float) -> int:
    """Voxels that fit into half of the free memory, which the processes of a run share without a GPU each."""
    is_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if is_gpu else _free_memory() / group_size()
    return int(min(max(free / 2 / bytes_per_voxel, FEWEST_VOXELS), MOST_VOXELS))


def _free_memory() -> float:
    """Bytes; 8 GiB where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = {line.split(":")[0]: float(line.split()[1]) for line in lines if line.endswith("kB")}
        return free["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError):
        return 8 * 2.0**30
