"""Options that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _make_room_for_json(path: Path | None) -> Path | None:
    """The file can be written; with `--json -` nothing else goes to standard output."""
    from ponder_cli import console

    console.check_json(path)
    console.out.stderr = str(path) == "-"
    return path


def checkpoint_path(text: str) -> Path:
    """The path; the name of an encoder that ships stands for its file, with a warning where both exist."""
    from ponder_cli import console
    from ponderv2.weights import choice_note, named_checkpoint

    note = choice_note(text)
    if note is not None:
        console.warn(note)
    return named_checkpoint(text)


PresetOption = Annotated[
    str,
    typer.Option(
        "--preset", "-p", metavar="NAME|FILE", help="A preset (see `ponder presets`) or a YAML file."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Change one value of the preset: a.b=c. Repeatable."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", "-d", metavar="DIR", help="Folder of prepared scenes. The preset names a default."
    ),
]
RunsOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder that holds the run folders.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", "-n", help="Name of the run folder. By default the preset's name.")
]
DevicesOption = Annotated[
    int | None, typer.Option("--devices", min=1, help="Number of processes on this machine, one per GPU.")
]
NodesOption = Annotated[
    int | None, typer.Option("--nodes", min=1, help="Number of machines that train together.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run where it stopped.")]
DeterministicOption = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Bit-identical results, with the same number of threads.",
    ),
]
SceneOption = Annotated[
    str,
    typer.Option(
        "--scene",
        help="Name of the scene, as in the folder of scenes; of a key frame also without its token.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Split: train, val, ... By default the one that holds the scene."),
]
RefineOption = Annotated[
    int | None, typer.Option("--refine", metavar="STEPS", help="Optimise on the scene's own frames first.")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_make_room_for_json,
        help="Also write the result as JSON; - for standard output.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", help="Where the model computes. auto: a GPU if there is one."
    ),
]
VoxelSizeOption = Annotated[
    float | None,
    typer.Option(
        "--voxel-size",
        metavar="METRES",
        help="Voxel size of a published encoder, whose file does not state it.",
    ),
]
InputsOption = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="NAMES",
        help="Point features that a published encoder expects: color,normal or coord,color.",
    ),
]
CHECKPOINT_HELP = "A checkpoint, the folder of a run (its best or last one), or an encoder that ships: rooms."
CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CKPT", parser=checkpoint_path, help=CHECKPOINT_HELP)
]
OptionalCheckpointArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[CKPT]", parser=checkpoint_path, help=f"{CHECKPOINT_HELP} By default rooms."),
]
