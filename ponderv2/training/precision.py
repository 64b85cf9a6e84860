"""In which number type a run really computes: what its settings ask for, where the device is good at it."""

from __future__ import annotations

from dataclasses import dataclass

from ponderv2.sparse.backends import spconv_installed
from ponderv2.training.config import Precision, TrainingConfig


@dataclass(frozen=True)
class PrecisionInUse:
    """The one decision that the process group, the log and the result of a run go by."""

    name: Precision
    """Of encoder and convolutions: 32, or autocast to bf16 or fp16."""
    note: str | None = None
    """Where that is not what the settings ask for: one sentence."""
    sparse_float32: bool = False
    """Under bf16: sparse convolutions are computed in float32, because spconv has no bfloat16."""

    def __str__(self) -> str:
        """For `environment.json` and results."""
        return f"{self.name} (sparse convolutions: 32)" if self.sparse_float32 else self.name


def precision_in_use(config: TrainingConfig, device_type: str) -> PrecisionInUse:
    """What the settings mean on a device: `cpu`, `cuda`.

    On a CPU half precision is float32: fp16 does not exist there, and bf16 is slower than float32 (its
    backward passes have no fast kernels), so it is used only where `bf16_on_cpu` asks for it.
    """
    wanted = config.precision
    if device_type != "cpu":
        spconv = wanted == "bf16" and device_type == "cuda" and spconv_installed()
        note = "spconv has no bfloat16: sparse convolutions run in float32" if spconv else None
        return PrecisionInUse(wanted, note, sparse_float32=spconv)
    if wanted == "fp16":
        return PrecisionInUse(
            "32", "training.precision is fp16, which a CPU does not have: running in float32"
        )
    if wanted == "bf16" and not config.bf16_on_cpu:
        return PrecisionInUse(
            "32",
            "training.precision is bf16, which is slower than float32 on a CPU: running in float32 "
            "(--set training.bf16_on_cpu=true runs in bf16)",
        )
    return PrecisionInUse(wanted)
