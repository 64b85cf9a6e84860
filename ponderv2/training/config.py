"""Settings of training: optimiser, learning-rate schedule, precision, how often to save. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import NO_EFFECT, StrictConfig

MOST_SCENES = 2**16
"""Per step. Larger values are almost certainly typos, and their list alone would take memory and time."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Precision = Annotated[Literal["32", "bf16", "fp16"], BeforeValidator(_as_text)]
"""In YAML also the number 32."""


class _ParameterGroups(StrictConfig):
    """How the parts of a model differ in what the optimiser does. By default they do not."""

    encoder_rate: PositiveFloat = 1.0
    """Factor on the learning rate of the encoder."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate from each stage of the encoder to the one before it: the last stage has it
    once, the one before twice, and so on; 0.65 to 0.9 are usual in fine-tuning."""
    encoder_warmup: Fraction = 0.0
    """Share of the steps in which the learning rate of the encoder rises along a line from 0, in addition to
    the schedule of all."""
    decay_norms: bool = True
    """Weight decay also on biases and on scale and shift of normalisations (parameters of a single axis)."""


class SgdConfig(_ParameterGroups):
    """Stochastic gradient descent, as the published indoor pre-training and fine-tuning use it."""

    kind: Literal["sgd"] = "sgd"
    rate: PositiveFloat = 2.0e-3
    """Largest learning rate; the schedule scales it."""
    momentum: Fraction = 0.9
    """Overridden by `one_cycle` with `cycle_momentum`."""
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 1.0e-4
    """On every parameter, biases and normalisation included, as published, unless `decay_norms` is false."""


class AdamwConfig(_ParameterGroups):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    rate: PositiveFloat = 1.0e-3
    """Largest learning rate; the schedule scales it."""
    beta1: Fraction = 0.9
    """Overridden by `one_cycle` with `cycle_momentum`."""
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1.0e-8
    weight_decay: NonNegativeFloat = 1.0e-2


OptimiserConfig = Annotated[SgdConfig | AdamwConfig, Field(discriminator="kind")]


class OneCycleConfig(StrictConfig):
    """Rises and falls along two half cosines; momentum does the opposite. Equal to torch's OneCycleLR."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of the steps in which the rate rises."""
    divide_start: PositiveFloat = 10.0
    """First rate = largest rate / this."""
    divide_end: PositiveFloat = 1.0e4
    """Last rate = first rate / this."""
    cycle_momentum: bool = True
    """Momentum (Adam: beta1) runs high -> low -> high, whatever the optimiser says, as published."""
    low_momentum: Fraction = 0.85
    high_momentum: Fraction = 0.95


class PolyConfig(StrictConfig):
    """(1 - step / (steps + 1)) ^ power."""

    kind: Literal["poly"] = "poly"
    power: PositiveFloat = 0.9


class ConstantConfig(StrictConfig):
    """One rate, reached along a straight line."""

    kind: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = 0


ScheduleConfig = Annotated[OneCycleConfig | PolyConfig | ConstantConfig, Field(discriminator="kind")]


class TrainingConfig(StrictConfig):
    """How a model is trained. One step is one optimiser step."""

    steps: NonNegativeInt = 1000
    """Of the optimiser; with 0, what the run starts from is saved and validated."""
    batch_size: Annotated[int, Field(gt=0, le=MOST_SCENES)] = 2
    """Scenes per step, all processes together."""
    accumulate: PositiveInt = 1
    """Micro-batches that the batch of a process is split into, one after the other, to need less memory.

    Batch normalisation takes the statistics of each part (of all processes together), and every loss is the
    mean of its means over the parts: not the same step as with `accumulate: 1`. Scenes, augmentations, Mix3D
    and random numbers are the same."""
    optimiser: OptimiserConfig = AdamwConfig()
    schedule: ScheduleConfig = OneCycleConfig()
    rate_factors: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Factor on the learning rate of parameters whose name starts with the key; the longest key wins."""
    frozen: tuple[str, ...] = ()
    """Parameters whose name starts so are not trained."""
    precision: Precision = "32"
    """Of the encoder and its convolutions; operations that need more run in float32. On a CPU bf16 and fp16
    run in float32, which is faster there."""
    bf16_on_cpu: bool = False
    """Run `precision: bf16` in bf16 on a CPU too, although that takes longer."""
    tf32: bool = True
    """Allow TF32 (19-bit) products on GPUs that have them. No effect on a CPU."""
    strategy: Literal["ddp"] = "ddp"
    """How several processes share the work."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout: Annotated[PositiveFloat, NO_EFFECT] = 600.0
    """Seconds after which a process that does not answer ends the run."""
    clip_gradient: PositiveFloat | None = None
    """Largest norm of the gradient of all parameters together."""
    max_bad_steps: PositiveInt = 10
    """Steps in a row without finite numbers, or without enough memory, after which the run stops."""
    keep_bad_batches: Annotated[NonNegativeInt, NO_EFFECT] = 3
    """Steps without finite numbers whose scenes are written into `bad_batches/`: the first ones of a run."""
    max_bad_scenes: Annotated[NonNegativeInt, NO_EFFECT] = 10
    """Scenes that cannot be read and may be skipped, listed in `bad_scenes.json`; one more ends the run."""
    workers: Annotated[NonNegativeInt, NO_EFFECT] = 0
    """Data workers of each training process. The batches do not depend on their number."""
    threads: Annotated[PositiveInt | None, NO_EFFECT] = None
    """CPU threads of each training process; None = torch default. Bit-identical results need the same."""
    deterministic: Annotated[bool, NO_EFFECT] = False
    """Only deterministic operations, where there are any, even if they are slower."""
    save_every: Annotated[PositiveInt, NO_EFFECT] = 200
    """Steps from one `last.pth` to the next."""
    keep_steps: Annotated[tuple[PositiveInt, ...], NO_EFFECT] = ()
    """Steps whose checkpoint is kept as `step-N.pth`, for good."""
    keep_every: Annotated[NonNegativeInt, NO_EFFECT] = 0
    """A `step-N.pth` every N steps, until there are `keep_newest` later ones; 0 = never."""
    keep_newest: Annotated[PositiveInt, NO_EFFECT] = 5
    """Checkpoints of `keep_every`, and validations with images in `previews/`, that a run folder holds."""
    log_megabytes: Annotated[PositiveFloat, NO_EFFECT] = 200.0
    """Most that each of `metrics.jsonl`, `log.txt` and the curves grow to; what is older is dropped."""
    evaluate_every: Annotated[NonNegativeInt, NO_EFFECT] = 200
    """Steps from one validation to the next; 0 = only after the last step."""
    evaluate_scenes: PositiveInt = 4
    """Scenes that are validated during pre-training."""
    evaluate_width: PositiveInt = 96
    """Width in pixels of the views that a validation renders: every n-th pixel of the image."""
    tensorboard: Annotated[bool, NO_EFFECT] = True
