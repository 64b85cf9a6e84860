"""What `ponder doctor` looks at. Libraries are imported in processes of their own: some kill theirs."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from typing import Literal

State = Literal["ok", "missing", "broken"]

SECONDS_PER_IMPORT = 120


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    state: State
    detail: str
    fix: str | None = None
    """What to type, where something is to be done."""
    required: bool = True


@dataclass(frozen=True)
class Part:
    """Something that can be installed."""

    distribution: tuple[str, ...]
    """Names under which it is published; the first one found counts."""
    module: str
    purpose: str
    extra: str | None = None
    """The extra of this package that brings it; None: part of the base install."""


BASE = (
    Part(("torch",), "torch", "tensors and networks"),
    Part(("numpy",), "numpy", "arrays"),
    Part(("open3d-cpu", "open3d"), "open3d", "fusion of depth frames, ray casting of generated rooms"),
    Part(("scikit-image",), "skimage.measure", "surface extraction"),
    Part(("trimesh",), "trimesh", "mesh files"),
    Part(("lightning-fabric",), "lightning_fabric", "training on several devices"),
    Part(("torchmetrics",), "torchmetrics", "metrics"),
    Part(("tensorboard",), "tensorboard", "curves and pictures of a run"),
    Part(("imageio",), "imageio", "pictures and films"),
)

EXTRAS = (
    Part(
        ("spconv-cu120", "spconv-cu126", "spconv"),
        "spconv.pytorch",
        "fast sparse convolution on GPUs",
        "cuda",
    ),
    Part(("torch-scatter",), "torch_scatter", "faster sums per voxel on GPUs; needs a compiler", "scatter"),
    Part(("imageio-ffmpeg",), "imageio_ffmpeg", "mp4 films from `ponder render --video mp4`", "video"),
    Part(("matplotlib",), "matplotlib", "plots of benchmarks", "plots"),
)

SPCONV_PROBE = """
import numpy, torch, spconv.pytorch as spconv
from cumm import tensorview
tensorview.from_numpy(numpy.zeros((2, 2), dtype=numpy.float32))
print(spconv.__version__ if hasattr(spconv, "__version__") else "works")
"""

GPU_PROBE = """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(torch.version.cuda or "none", "|", "; ".join(names))
"""


def examine() -> tuple[Finding, ...]:
    """Everything, from the interpreter to the optional parts. Takes some seconds."""
    findings = [_interpreter(), *(_part(part) for part in BASE), _gpu()]
    findings += [_part(part) for part in EXTRAS]
    return (*findings, _sparse_backend(findings))


def _interpreter() -> Finding:
    version = platform.python_version()
    detail = f"Python {version} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "ok", detail)
    return Finding("python", "broken", detail, fix="use Python 3.11, 3.12 or 3.13")


def _part(part: Part) -> Finding:
    name, required = part.distribution[0], part.extra is None
    if name.startswith("open3d") and sys.version_info >= (3, 13) and _version(part.distribution) is None:
        fix = "use Python 3.11 or 3.12"
        return Finding(name, "missing", f"{part.purpose}; none for this Python", fix=fix, required=False)
    version = _version(part.distribution)
    if version is None or util.find_spec(part.module.split(".")[0]) is None:
        fix = f'pip install "ponder[{part.extra}]"' if part.extra else "pip install ponder"
        return Finding(name, "missing", part.purpose, fix=fix, required=required)
    code = SPCONV_PROBE if part.extra == "cuda" else f"import {part.module}"
    problem = _problem_of(code)
    if problem is None:
        return Finding(name, "ok", version, required=required)
    return Finding(name, "broken", f"{version}: {problem}", fix=_remedy(name, problem), required=required)


def _gpu() -> Finding:
    done = _run(GPU_PROBE)
    if done is None or done.returncode != 0:
        return Finding("gpu", "broken", "torch cannot be asked", fix="pip install torch", required=False)
    built_for, names = (part.strip() for part in done.stdout.split("|", 1))
    if names:
        return Finding("gpu", "ok", f"{names} (torch built for CUDA {built_for})", required=False)
    if built_for == "none":
        return Finding(
            "gpu", "missing", "this torch is built for the CPU alone; everything runs", required=False
        )
    detail = f"torch is built for CUDA {built_for} but finds no GPU or driver; everything runs on the CPU"
    return Finding("gpu", "missing", detail, fix="nvidia-smi", required=False)


def _sparse_backend(findings: list[Finding]) -> Finding:
    states = {finding.name: finding.state for finding in findings}
    fast = states.get("gpu") == "ok" and states.get("spconv-cu120") == "ok"
    detail = "spconv on the GPU" if fast else "plain torch"
    return Finding("sparse convolution", "ok", detail, required=False)


def _remedy(name: str, problem: str) -> str:
    if name.startswith("spconv") and (_version(("numpy",)) or "").startswith("2"):
        return 'pip install "numpy<2"'
    if name.startswith("open3d") and "libusb" in problem:
        return 'pip install "open3d-cpu<0.20"'
    return f"pip install --force-reinstall {name}"


def _problem_of(code: str) -> str | None:
    """The last line of the error when this code is run, None when it succeeds."""
    done = _run(code)
    if done is None:
        return f"no answer within {SECONDS_PER_IMPORT} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process was ended by signal {-done.returncode}"


def _run(code: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_IMPORT,
            check=False,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return None


def _version(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
