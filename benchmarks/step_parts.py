"""One pre-training step, part by part, with the time of each; the sum is what the training loop does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ponderv2.geometry.features import Features, FusedFeatures, ImageFeatures
from ponderv2.lift.image_depth import EstimatesDepth
from ponderv2.lift.volume_frame import volume_frame
from ponderv2.models.pretext import EncodedScenes, PretextModel
from ponderv2.randomness import make_generator, scene_generators
from ponderv2.renderer.sampling import draw_noise_of_scenes
from ponderv2.scenes.batch import Batch

FORWARD = ("backbone", "rays", "to_dense", "projection", "renderer", "losses")
BACKWARD = ("renderer and losses", "projection", "to_dense", "backbone")
PARTS = (*(f"forward {name}" for name in FORWARD), *(f"backward {name}" for name in BACKWARD), "optimiser")


class Clock:
    """Seconds between marks: of the wall clock, and of all threads of this process."""

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._watch = watch
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    def mark(self, name: str) -> None:
        """What was done since the last mark was `name`."""
        now, now_cpu = time.perf_counter(), time.process_time()
        self.seconds[name] = now - self._last
        self.cpu_seconds[name] = now_cpu - self._last_cpu
        self._last, self._last_cpu = now, now_cpu
        if self._watch is not None:
            self._watch(name)

    def mark_gradient(self, values: Sequence[Tensor], name: str) -> None:
        """Mark once the backward pass arrives at `values`, made one after the other.

        What was computed last is differentiated first: when one of them is reached, all that was made of them
        is done.
        """
        is_marked = False

        def arrived(_: Tensor) -> None:
            nonlocal is_marked
            if not is_marked:
                is_marked = True
                self.mark(name)

        for one in values:
            one.register_hook(arrived)


def one_step(
    model: PretextModel,
    optimiser: Optimizer,
    batch: Batch,
    step: int = 0,
    precision: AbstractContextManager[Any] | None = None,
    watch: Callable[[str], None] | None = None,
) -> tuple[Clock, float]:
    """Forward, backward, update, as `PretextModel.forward` and the loop do. Times per part, and the loss.

    `precision` is the autocast context of the forward pass; `watch` receives every part that is finished.
    """
    clock = Clock(watch)
    with precision or nullcontext():
        loss = forward(model, batch, make_generator("step", step), clock)
    loss.backward()
    clock.mark("backward backbone")
    torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    clock.mark("optimiser")
    return clock, float(loss.detach())


def forward(model: PretextModel, batch: Batch, generator: torch.Generator, clock: Clock) -> Tensor:
    """`PretextModel.forward(batch, generator).losses.total()`, with the clock at the borders of the parts."""
    features = model.encode(batch, generator)
    clock.mark_gradient(tensors_of(features), "backward to_dense")
    clock.mark("forward backbone")
    frame = volume_frame(batch.coord, batch.offset, model.config.frame)
    rays = model.rays(batch, frame)
    counts = torch.bincount(rays.rays.scene, minlength=len(batch.offset)).tolist()
    generators = scene_generators(generator, len(counts), batch.slots)
    noise = draw_noise_of_scenes(counts, generators, model.config.renderer, batch.feature.device)
    clock.mark("forward rays")
    if isinstance(model.lift, EstimatesDepth):
        features = model.lift.with_depth(features)
    cells = model.lift(features, frame)
    clock.mark_gradient([cells.rows], "backward projection")
    clock.mark("forward to_dense")
    volume = model.proj_net.project(cells, deferred=True)
    clock.mark_gradient([volume.values], "backward renderer and losses")
    clock.mark("forward projection")
    encoded = EncodedScenes(features, volume, frame)
    output = model.render(encoded, rays, noise)
    clock.mark("forward renderer")
    loss = model.compare(batch, encoded, rays, output).losses.total()
    clock.mark("forward losses")
    return loss


def tensors_of(features: Features) -> list[Tensor]:
    """What an encoder gave: vectors of points, maps of images, or both."""
    if isinstance(features, FusedFeatures):
        return [*tensors_of(features.points), *tensors_of(features.images)]
    if isinstance(features, ImageFeatures):
        return [one.feature for one in features.maps]
    return [features.feature]
