"""One target in this process: reads damaged inputs until it is stopped, and keeps the failures.

python -m tests.campaigns.fuzz.campaign TARGET --inputs N --seconds S --engine guided --out FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz.mutation import LARGEST, damaged
from tests.campaigns.fuzz.watch import Fault, Watch

POOL = 400
"""Inputs of the plain engine that further ones are made of."""
RECORD_EVERY = 500
MEMORY_DISK = Path("/dev/shm")


class Campaign:
    """Counts inputs and collects faults, one per place."""

    def __init__(self, name: str, out: Path, inputs: int, seconds: float) -> None:
        from ponderv2.errors import PonderError
        from tests.campaigns.fuzz.targets import TARGETS

        self.name, self.out, self.most, self.seconds = name, out, inputs, seconds
        self.folder = Path(
            tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)
        )
        os.environ["PONDER_CACHE"] = str(self.folder / "cache")
        self.current = self.folder / "current.input"
        """What is being read, for whoever finds this process dead or hanging."""
        (out / "current").unlink(missing_ok=True)
        (out / "current").symlink_to(self.current)
        self.target = TARGETS[name]
        self.read = self.target.prepare(self.folder)
        self.watch = Watch(self.folder, PonderError)
        self.seeds = self.target.seeds()
        self.count, self.start = 0, time.monotonic()
        self.faults: dict[str, tuple[Fault, bytes]] = {}
        self.n_faulty = 0
        for data in self.seeds:
            for one in (data, data[: len(data) // 2], data + b"x"):
                self._warm(one)
        self.watch.limit_memory(LARGEST)
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _warm(self, data: bytes) -> None:
        """Late imports and caches cost once, and no input is to blame for them."""
        with contextlib.suppress(Exception):
            self.read(data)

    def one(self, data: bytes) -> bool:
        """Read one input; whether there is more to do."""
        self.current.write_bytes(data)
        self.count += 1
        self._try(data)
        if self.count % RECORD_EVERY == 0:
            self.record()
        return self.count < self.most and time.monotonic() - self.start < self.seconds

    def _try(self, data: bytes) -> None:
        fault = self.watch.run(self.read, data)
        if fault is None:
            return
        self.n_faulty += 1
        key = f"{fault.kind}: {fault.where}"
        known = self.faults.get(key)
        if known is None or len(data) < len(known[1]):
            self.faults[key] = (fault, data)
            stem = "".join(one if one.isalnum() else "-" for one in key)[:80]
            (self.out / f"{stem}.input").write_bytes(data)
            (self.out / f"{stem}.txt").write_text(fault.text)

    def record(self) -> None:
        """The state so far."""
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before
        values = {
            "target": self.name, "inputs": self.count, "seconds": round(time.monotonic() - self.start, 1),
            "faulty": self.n_faulty, "rss_growth_mb": round(grown / 1024, 1),
            "findings": [{**asdict(fault), "bytes": len(data)} for fault, data in self.faults.values()],
        }  # fmt: skip
        temporary = self.out / "state.partial"
        temporary.write_text(json.dumps(values, indent=1))
        temporary.replace(self.out / "state.json")

    def close(self) -> None:
        """The last state; the folder goes."""
        self.record()
        shutil.rmtree(self.folder, ignore_errors=True)


def plain(campaign: Campaign, seed: int) -> None:
    """Damage of sound files and of what was damaged before."""
    rng = random.Random(seed)
    pool = list(campaign.seeds)
    while True:
        data = damaged(rng.choice(pool if rng.random() < 0.5 else campaign.seeds), campaign.target.kind, rng)
        if rng.random() < 0.05:
            pool.append(data)
            if len(pool) > POOL:
                pool.pop(rng.randrange(len(campaign.seeds), len(pool)))
        if not campaign.one(data):
            return


def guided(campaign: Campaign, seed: int, atheris: Any) -> None:
    """The same, and libFuzzer's, kept where they reach new code."""
    corpus = Path(tempfile.mkdtemp(prefix="corpus-", dir=campaign.out))
    for index, data in enumerate(campaign.seeds):
        (corpus / str(index)).write_bytes(data)
    kind = campaign.target.kind

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 3 == 0:
            return atheris.Mutate(data, most)
        return damaged(data, kind, random.Random(number))[:most]

    def test(data: bytes) -> None:
        if not campaign.one(data):
            campaign.close()
            os._exit(0)  # libFuzzer has no other end

    options = [f"-max_len={LARGEST}", f"-seed={seed}", "-rss_limit_mb=0", "-timeout=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(corpus), *options, "-handle_abrt=0"], test, custom_mutator=mutate)
    atheris.Fuzz()


def run(target: str, engine: str, inputs: int, seconds: float, seed: int, out: Path) -> None:
    """One campaign in this process, whose limits it changes."""
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    atheris: Any = None
    if engine == "guided":
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["ponderv2", "ponder_cli"], enable_loader_override=False):
            import_readers()
    import_readers()
    campaign = Campaign(target, out, inputs, seconds)
    if atheris is None:
        plain(campaign, seed)
    else:
        guided(campaign, seed, atheris)
    campaign.close()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("plain", "guided"), default="plain")
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    run(wanted.target, wanted.engine, wanted.inputs, wanted.seconds, wanted.seed, wanted.out)


READERS = (
    "ponder_cli.presets", "ponderv2.heads.text_embeddings", "ponderv2.reconstruction.camera_paths",
    "ponderv2.datasets.recognise", "ponderv2.training.open_checkpoint", "ponderv2.workflows.prepare",
    "scipy.ndimage", "scipy.spatial", "PIL.PngImagePlugin", "PIL.JpegImagePlugin",
)  # fmt: skip
"""What reads, and what it imports late: imports would hang at the limit of memory."""


def import_readers() -> None:
    """Before limits hold; under the guided engine so that branches of ours are counted."""
    for name in READERS:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
