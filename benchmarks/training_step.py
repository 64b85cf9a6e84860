"""The CPU cost of one pre-training step of published width: time per part, memory, and the machine's limits.

Run: python -m benchmarks.training_step [--json FILE] [--repeats 5] [--threads 2] [--precision 32 bf16]

Two generated rooms of 60,000 voxels, 5 views x 256 rays each, 132 samples per ray, all losses. Each precision
runs in a fresh process, whose largest resident memory is that of two training steps. Every step is followed
by products of two 2048x2048 float32 matrices, whose rate is the arithmetic limit of this run; it is no
yardstick between machines. The CPU time of all threads is stated too: on a machine that others use it says
more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.operation_counts import OperationCounts, copy_rate, product_flops, product_seconds
from benchmarks.step_parts import PARTS, Clock, one_step
from benchmarks.step_workload import config, default_cache, make_batch, make_model
from ponderv2.training.optimiser import build_optimiser


def measure(repeats: int, precision: str, cache: Path) -> dict[str, Any]:
    """Times, memory and counts in this process."""
    settings = config()
    batch = make_batch(settings, cache)
    model = make_model(settings)
    optimiser = build_optimiser(model, settings.training)
    found: dict[str, Any] = {"memory_before_gib": memory_gib()}
    clocks: list[Clock] = []
    products, products_cpu, losses = [], [], []
    for turn in range(repeats + 1):
        clock, loss = one_step(model, optimiser, batch, turn, _precision(precision))
        if turn:  # the first step is the warm-up
            clocks.append(clock)
        if turn == 1:
            found["memory_gib"] = memory_gib()
        losses.append(loss)
        wall, cpu = product_seconds(repeats=3)
        products, products_cpu = products + wall, products_cpu + cpu
    found |= {
        "precision": precision,
        "threads": torch.get_num_threads(),
        "losses": losses,
        "memory_gib_end": memory_gib(),
    }
    for name, of, product in (("wall", "seconds", products), ("cpu", "cpu_seconds", products_cpu)):
        parts = {part: [getattr(clock, of)[part] for clock in clocks] for part in PARTS}
        steps = [sum(getattr(clock, of).values()) for clock in clocks]
        found[name] = {"parts": parts, "step": steps, "product": product}
    # The rate of all threads: by CPU time, so that waiting for a busy core does not count.
    product = min(products_cpu) / torch.get_num_threads()
    found["limits"] = _limits(model, batch, optimiser, precision, product)
    return found


def _limits(model: Any, batch: Any, optimiser: Any, precision: str, product: float) -> dict[str, Any]:
    """Arithmetic over the rate of the product, traffic over the rate of a copy, per part."""
    counts, threads = OperationCounts(), torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads execute is not seen
    with counts:
        one_step(model, optimiser, batch, 0, _precision(precision), counts.finish)
    torch.set_num_threads(threads)
    gemm, copy = product_flops() / product, copy_rate()
    parts = {
        name: {
            "gflop": counts.flops[name] / 1e9,
            "gigabyte": counts.traffic[name] / 1e9,
            "seconds": max(counts.flops[name] / gemm, counts.traffic[name] / copy),
        }
        for name in PARTS
    }
    return {"gflops_per_second": gemm / 1e9, "copy_gigabyte_per_second": copy / 1e9, "parts": parts}


def _precision(name: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16")


def memory_gib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _fresh(precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.training_step", "--child", "--precision", precision]
    command += ["--repeats", str(arguments.repeats), "--threads", str(arguments.threads)]
    command += ["--cache", str(arguments.cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict[str, Any]) -> None:
    """The table of one precision."""
    print(f"\nprecision {found['precision']}")
    print(f"{'part':30}{'median s':>9}{'best s':>9}{'CPU s':>9}{'limit s':>9}{'share':>7}")
    limits = {name: part["seconds"] for name, part in found["limits"]["parts"].items()}
    wall, cpu, threads = found["wall"], found["cpu"], found["threads"]
    for name, seconds in wall["parts"].items():
        _line(name, seconds, cpu["parts"][name], limits[name], threads)
    _line("step", wall["step"], cpu["step"], sum(limits.values()), threads)
    print(f"largest resident memory {found['memory_gib']:.2f} GiB")


def _line(name: str, wall: list[float], cpu: list[float], limit: float, threads: int) -> None:
    """The share is that of the CPU time."""
    share = limit * threads / max(min(cpu), 1e-9)
    print(f"{name:30}{median(wall):9.2f}{min(wall):9.2f}{min(cpu):9.2f}{limit:9.2f}{share:7.0%}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="+", choices=("32", "bf16"), default=["32", "bf16"])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the generated rooms")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments.repeats, arguments.precision[0], arguments.cache)))
        return
    results = [_fresh(precision, arguments) for precision in arguments.precision]
    for found in results:
        show(found)
    if arguments.json:
        about = {"threads": arguments.threads, "cores": os.cpu_count(), "machine": platform.machine()}
        about |= {"torch": torch.__version__}
        arguments.json.write_text(json.dumps({"about": about, "runs": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
