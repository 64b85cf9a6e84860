"""Pre-training, probing and fine-tuning of one small encoder, in small loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.gain_rooms import CropSettings, Room, on_device, training_batch, training_piece, whole_room
from ponderv2.encoder.config import MaskConfig, SparseUNetConfig
from ponderv2.encoder.kinds import build_encoder
from ponderv2.evaluation.semantic import confusion_matrix, segmentation_metrics
from ponderv2.lift.config import ConvBlock3DConfig, CubeFrameConfig
from ponderv2.models.config import ClassTargetConfig, PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.renderer.config import (
    ClassesConfig,
    DecoderConfig,
    FieldConfig,
    GuidedSamplerConfig,
    RendererConfig,
    RenderLossConfig,
)
from ponderv2.scenes.batch import Batch
from ponderv2.sparse.normalisation import BatchNorm

ENCODER = SparseUNetConfig(
    in_channels=7,
    base_channels=16,
    channels=(24, 32, 48, 48, 48, 48),
    layers=(1,) * 6,
    norm_momentum=0.1,
)
State = dict[str, Tensor]


@dataclass(frozen=True)
class PretrainSettings:
    """One pretext run."""

    crop: CropSettings = field(default_factory=CropSettings)
    n_pieces: int = 2
    rate: float = 5e-3
    n_targets: int = 0
    """Rendered classes, given or found; 0: colour, depth and distance only."""
    mask: MaskConfig | None = None
    losses: RenderLossConfig = field(
        default_factory=lambda: RenderLossConfig(semantic=0.0, semantic_target=ClassesConfig())
    )
    cells: tuple[int, int, int] = (20, 20, 16)
    n_free: int = 3
    n_near: int = 5

    def model(self) -> PretextConfig:
        """The pretext model of the library."""
        return PretextConfig(
            encoder=ENCODER,
            mask=self.mask,
            frame=CubeFrameConfig(cube_size=4.6, cells=self.cells, box="bounds"),
            projection=ConvBlock3DConfig(out_channels=24),
            renderer=RendererConfig(
                guided=GuidedSamplerConfig(n_free=self.n_free, n_near=self.n_near),
                field=FieldConfig(sdf=DecoderConfig(hidden=24), geometry_channels=8, share_volume=True),
            ),
            losses=self.losses,
            semantic=ClassTargetConfig(n_classes=self.n_targets) if self.n_targets else None,
        )


def one_cycle(
    optimiser: torch.optim.Optimizer, rates: list[float], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Up over the first tenth, then down along a cosine."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps, pct_start=0.1, div_factor=10, final_div_factor=100
    )


def pretrain(
    rooms: list[Room],
    settings: PretrainSettings,
    steps: int,
    seed: int,
    device: str,
    at_gate: Callable[[int, PretextModel, float], None],
    gates: tuple[int, ...] = (),
) -> State:
    """Weights of the encoder after pre-training. `at_gate(step, model, seconds)` is called on the way."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = PretextModel(settings.model()).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.01)
    schedule = one_cycle(optimiser, [settings.rate], steps)
    start = time.process_time()
    totals: dict[str, float] = {}
    for step in range(1, steps + 1):
        picked = torch.randint(len(rooms), (settings.n_pieces,), generator=generator).tolist()
        pieces = [training_piece(rooms[i], settings.crop, generator) for i in picked]
        result = model(training_batch(pieces, device), torch.Generator().manual_seed(seed * 1000003 + step))
        loss = result.losses.total()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        for name, value in {**vars(result.losses), "psnr": result.psnr}.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach())
        if step % 50 == 0:
            shown = "  ".join(f"{k} {v / 50:.3f}" for k, v in totals.items() if v)
            print(f"  pretext {step} {(time.process_time() - start) / step:.3f} s/step  {shown}", flush=True)
            totals.clear()
        if step in gates or step == steps:
            at_gate(step, model, time.process_time() - start)
            model.train()
    return {name: value.detach().clone() for name, value in model.backbone.state_dict().items()}


def encode(encoder: nn.Module, batch: Batch) -> Float[Tensor, "point channel"]:
    """Features of all voxels of a batch."""
    return encoder(batch).feature


def new_encoder(state: State | None, seed: int, device: str) -> nn.Module:
    """A random encoder, or the one with these weights."""
    torch.manual_seed(seed)
    encoder = build_encoder(ENCODER).to(device)
    if state is not None:
        encoder.load_state_dict(state)
    return encoder


@torch.no_grad()
def calibrate(encoder: nn.Module, rooms: list[Room], voxel: float, device: str) -> None:
    """Statistics of the normalisations from whole rooms (for a random encoder, which has none)."""
    norms = [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    encoder.train()
    for room in rooms:
        encode(encoder, on_device(whole_room(room, voxel)[0], device))
    for norm in norms:
        norm.momentum = ENCODER.norm_momentum


@dataclass(frozen=True)
class Encoded:
    """Frozen features of a room."""

    feature: Float[Tensor, "voxel channel"]
    inverse: Int[Tensor, " point"]
    """Voxel of every point."""

    def at(self, points: Int[Tensor, " some"]) -> Float[Tensor, "some channel"]:
        """Feature of the voxels of some points."""
        return self.feature[self.inverse[points]]


@torch.no_grad()
def encode_room(encoder: nn.Module, room: Room, voxel: float, device: str) -> Encoded:
    """Features of all voxels of a room; the encoder is put into evaluation."""
    encoder.eval()
    batch, inverse = whole_room(room, voxel)
    return Encoded(encode(encoder, on_device(batch, device)).cpu(), inverse)


def fit_linear(
    feature: Float[Tensor, "point channel"], label: Int[Tensor, " point"], n_classes: int, decay: float
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a quadratic penalty, by L-BFGS."""
    weight = torch.zeros(n_classes, feature.shape[1], requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(feature @ weight.T + bias, label) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


@dataclass(frozen=True)
class Linear:
    """Scores = feature @ weight.T + bias."""

    weight: Float[Tensor, "class channel"]
    bias: Float[Tensor, " class"]


def fit_probe(encoded: list[Encoded], rooms: list[Room], n_classes: int, most: int = 12000) -> Linear:
    """A linear classifier of frozen features, from the labels that the rooms have."""
    known = [(room.segment >= 0).nonzero()[:, 0] for room in rooms]
    feature = torch.cat([one.at(points) for one, points in zip(encoded, known, strict=True)])
    label = torch.cat([room.segment[points] for room, points in zip(rooms, known, strict=True)])
    chosen = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))[:most]
    feature, label = feature[chosen], label[chosen]
    mean, deviation = feature.mean(0), feature.std(0) + 1e-6
    weight, bias = fit_linear((feature - mean) / deviation, label, n_classes, 1e-4)
    return Linear(weight / deviation, bias - (weight / deviation) @ mean)


def score_probe(probe: Linear, encoded: list[Encoded], rooms: list[Room]) -> float:
    """Mean IoU of a linear classifier over the points of rooms."""
    n_classes = len(probe.bias)
    confusion = torch.zeros(n_classes, n_classes, dtype=torch.long)
    for one, room in zip(encoded, rooms, strict=True):
        found = (one.feature @ probe.weight.T + probe.bias).argmax(1)
        confusion += confusion_matrix(found[one.inverse], room.segment, n_classes)
    return segmentation_metrics(confusion, skip_absent=True).mean_iou


@dataclass(frozen=True)
class FinetuneSettings:
    """One fine-tuning run."""

    steps: int = 150
    n_pieces: int = 2
    rate: float = 1e-2
    probe_first: bool = False
    """The head starts as the linear probe of the encoder as it is (Kumar et al. 2022), not at random."""
    encoder_share: float = 1.0
    """Learning rate of the encoder as a share of that of the head."""
    crop: CropSettings = field(default_factory=lambda: CropSettings(n_rays=0))


class Segmenter(nn.Module):
    """The encoder and a linear head."""

    def __init__(self, encoder: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.backbone = encoder
        self.head = nn.Linear(ENCODER.out_channels, n_classes)

    def forward(self, batch: Batch) -> Float[Tensor, "point class"]:
        return self.head(encode(self.backbone, batch))


def room_order(n_rooms: int, generator: torch.Generator) -> Iterator[int]:
    """All rooms in random order, again and again."""
    while True:
        yield from torch.randperm(n_rooms, generator=generator).tolist()


def finetune(
    state: State | None,
    labelled: list[Room],
    n_classes: int,
    settings: FinetuneSettings,
    seed: int,
    device: str,
) -> Segmenter:
    """Train encoder and head on the labels of some rooms."""
    generator = torch.Generator().manual_seed(seed)
    model = Segmenter(new_encoder(state, seed, device), n_classes).to(device).train()
    if settings.probe_first:
        _start_from_probe(model, labelled[:40], settings.crop.voxel, device, calibrated=state is not None)
    rates = [settings.rate * settings.encoder_share, settings.rate]
    groups = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in zip((model.backbone, model.head), rates, strict=True)
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.02)
    schedule = one_cycle(optimiser, rates, settings.steps)
    order = room_order(len(labelled), generator)
    for _ in range(settings.steps):
        rooms = [labelled[next(order)] for _ in range(settings.n_pieces)]
        pieces = [training_piece(room, settings.crop, generator, around=room.segment >= 0) for room in rooms]
        batch = training_batch(pieces, device)
        loss = F.cross_entropy(model(batch), batch.segment, ignore_index=-1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return model


def _start_from_probe(
    model: Segmenter, rooms: list[Room], voxel: float, device: str, calibrated: bool
) -> None:
    if not calibrated:
        calibrate(model.backbone, rooms[:8], voxel, device)
    encoded = [encode_room(model.backbone, room, voxel, device) for room in rooms]
    fitted = fit_probe(encoded, rooms, model.head.out_features)
    with torch.no_grad():
        model.head.weight.copy_(fitted.weight)
        model.head.bias.copy_(fitted.bias)
    model.train()


@torch.no_grad()
def evaluate(model: Segmenter, rooms: list[Room], n_classes: int, voxel: float, device: str) -> float:
    """Mean IoU over the points of whole rooms."""
    model.eval()
    confusion = torch.zeros(n_classes, n_classes, dtype=torch.long)
    for room in rooms:
        batch, inverse = whole_room(room, voxel)
        found = model(on_device(batch, device)).argmax(1).cpu()
        confusion += confusion_matrix(found[inverse], room.segment, n_classes)
    return segmentation_metrics(confusion, skip_absent=True).mean_iou


def with_few_points(room: Room, n_points: int, seed: int) -> Room:
    """The same room with the labels of some random points only."""
    known = (room.segment >= 0).nonzero()[:, 0]
    number = int.from_bytes(room.name.encode()[-6:], "little") + seed
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(number))
    kept = torch.full_like(room.segment, -1)
    chosen = known[order[:n_points]]
    kept[chosen] = room.segment[chosen]
    return replace(room, segment=kept)
