"""Jobs that give figures, and the runs of the commands that all experiments are made of."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from experiments.gain_figures import Figures, Key
from ponder_cli.presets import load_preset
from ponderv2.training.report import SilentReporter
from ponderv2.workflows import finetune, pretrain
from ponderv2.workflows.config import FinetuneConfig, PretrainConfig


@dataclass(frozen=True)
class Job:
    """Something that gives figures."""

    name: str
    gives: tuple[Key, ...]
    run: Callable[[], None]
    figures: Figures

    def is_done(self) -> bool:
        """Whether all its figures are known."""
        return all(self.figures.has(key) for key in self.gives)


def remaining(jobs: list[Job], phrases: list[str]) -> list[Job]:
    """Those that are not done and whose name holds one of the phrases; all without any."""
    wanted = [job for job in jobs if not phrases or any(phrase in job.name for phrase in phrases)]
    return [job for job in wanted if not job.is_done()]


def run_jobs(jobs: list[Job]) -> None:
    """One after the other, with a line for each."""
    for number, job in enumerate(jobs):
        print(f"[{number + 1}/{len(jobs)}] {job.name}", flush=True)
        if not job.is_done():  # an earlier job may have given its figures
            job.run()


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Which jobs are done, and what else a call may ask for."""
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", nargs="*", default=[], metavar="PHRASE", help="only jobs with such a name")
    parser.add_argument("--most", type=int, help="jobs of this call; by default all that remain")
    parser.add_argument("--list", action="store_true", help="say what is still to be done")
    parser.add_argument("--table", action="store_true", help="only show what is known")


def carry_out(jobs: list[Job], options: argparse.Namespace, prepare: Callable[[], None]) -> bool:
    """Prepares the data and does what is not done yet, as the options say. False: they were only listed."""
    to_do = remaining(jobs, options.jobs)
    if options.list:
        print("\n".join(job.name for job in to_do))
        return False
    if not options.table:
        prepare()
        run_jobs(to_do[: options.most])
    return True


class Notes(SilentReporter):
    """Prints what a command reports, such as how a head was fitted."""

    def note(self, text: str) -> None:
        """One line."""
        print(f"  {text}", flush=True)

    warn = note


def command(*words: str, changes: list[str] | None = None) -> str:
    """The same as a line of the shell."""
    sets = [part for change in changes or [] for part in ("--set", change)]
    return " ".join(["ponder", *words, *map(shlex.quote, sets)])


def slug(*words: str) -> str:
    """A name for a folder."""
    return "-".join(words).replace(", ", "+").replace(" ", "_")


def has_begun(folder: Path) -> bool:
    """Whether a run can be resumed; what was interrupted before its first checkpoint is removed."""
    if (folder / "checkpoints" / "last.pth").is_file():
        return True
    if folder.is_dir():
        shutil.rmtree(folder)
    return False


def pretrained(preset: str, folder: Path, scenes: Path, changes: list[str]) -> tuple[float, str]:
    """Pre-trains into the folder of a run, or continues it: its seconds, and the command."""
    config = load_preset("pretrain", preset, [*changes, "training.threads=1"], PretrainConfig)
    done = pretrain.run(config, scenes=scenes, out=folder.parent, name=folder.name, resume=has_begun(folder))
    return done.seconds, command("pretrain", "--preset", preset, "--name", folder.name, changes=changes)


@contextmanager
def fine_tuned_run(
    preset: str,
    checkpoint: Path | None,
    scenes: Path,
    changes: list[str],
    out: Path,
    protocol: Literal["linear"] | None = None,
) -> Iterator[tuple[finetune.FinetuneResult, str]]:
    """A model that is fine-tuned from a run or from scratch, and the command. Its folder is removed."""
    words = ["--scratch"] if checkpoint is None else ["--from", f"runs/{checkpoint.name}"]
    config = load_preset("finetune", preset, [*changes, "training.threads=1"], FinetuneConfig)
    if protocol is not None:
        words += ["--protocol", protocol]
        config = config.model_copy(update={"protocol": protocol})
    with TemporaryDirectory(dir=out) as folder:
        done = finetune.run(
            config, checkpoint=checkpoint, scenes=scenes, out=Path(folder), name="run", report=Notes()
        )
        yield done, command("finetune", "--preset", preset, *words, changes=changes)
