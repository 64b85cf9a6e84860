"""Device, number type and determinism of a run."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ponderv2.errors import ResourceError
from ponderv2.sparse.backends import spconv_installed
from ponderv2.training.config import Precision, TrainingConfig


def chosen_device(name: str | torch.device) -> torch.device:
    """auto: a GPU where there is one. Raises ResourceError for a device that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError("this machine has no GPU that torch can use", fix="--device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ResourceError(f"there is no device called '{name}'", fix="--device auto") from error


@dataclass(frozen=True)
class PrecisionInUse:
    """The precision that process group, log and result of a run share."""

    name: Precision
    """Of encoder and convolutions: 32, or autocast to bf16 or fp16."""
    note: str | None = None
    """One sentence where that differs from the settings."""
    sparse_float32: bool = False
    """Under bf16: sparse convolutions are computed in float32, because spconv has no bfloat16."""

    def __str__(self) -> str:
        """For `environment.json` and results."""
        return f"{self.name} (sparse convolutions: 32)" if self.sparse_float32 else self.name


def precision_in_use(config: TrainingConfig, device_type: str) -> PrecisionInUse:
    """The precision of the settings on a device: `cpu`, `cuda`.

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


@contextlib.contextmanager
def repeatable(config: TrainingConfig, warn: Callable[[str], None]) -> Iterator[None]:
    """Context with the threads and deterministic operations of the settings; restored at the end.

    On a CPU an operation that has no deterministic form raises. On a GPU it is named once in a
    warning and used: there the result may differ in its last bits.
    """
    threads = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            on_gpu = config.device != "cpu" and torch.cuda.is_available()
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=on_gpu)
            torch.backends.cudnn.benchmark = False
            warnings.showwarning = _named(warnings.showwarning, warn)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(before, warn_only=only_warned)
            torch.backends.cudnn.benchmark = benchmark


def _named(show: Callable[..., None], warn: Callable[[str], None]) -> Callable[..., None]:
    """Reports each of torch's warnings about non-deterministic operations once."""
    known: set[str] = set()

    def showwarning(message: Warning | str, *rest: object, **named: object) -> None:
        text = str(message)
        if "deterministic" not in text:
            show(message, *rest, **named)
        elif (first := text.split(".")[0]) not in known:
            known.add(first)
            warn(f"not deterministic: {first}")

    return showwarning


def peak_memory(device: torch.device) -> float:
    """Most memory held so far, GiB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
