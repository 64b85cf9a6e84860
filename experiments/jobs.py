"""Jobs that give figures, and the runs of the commands that all experiments are made of."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
    preset: str, checkpoint: Path | None, scenes: Path, changes: list[str], out: Path
) -> Iterator[tuple[Path, str]]:
    """Folder of a model that is fine-tuned from a run or from scratch, and the command. It is removed."""
    words = ["--scratch"] if checkpoint is None else ["--from", f"runs/{checkpoint.name}"]
    config = load_preset("finetune", preset, [*changes, "training.threads=1"], FinetuneConfig)
    with TemporaryDirectory(dir=out) as folder:
        done = finetune.run(
            config, checkpoint=checkpoint, scenes=scenes, out=Path(folder), name="run", report=Notes()
        )
        yield done.folder, command("finetune", "--preset", preset, *words, changes=changes)
