"""Encoders that ship with the program, by their names. Never imports torch; nothing is downloaded.

Beside every file `<name>.safetensors` lies its model card `<name>.md`: how it was made, what it is good for.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("rooms",)
"""They stand for their files wherever a checkpoint is named."""
DEFAULT = "rooms"
"""Used where no checkpoint is named."""
PRESET = "rooms"
"""Of fine-tuning that starts from one of them."""


def weights_file(name: str) -> Path:
    """The file of an encoder that ships. Raises ValueError for a name that is none of `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, got '{name}'")
    return FOLDER / f"{name}.safetensors"


def named_checkpoint(name: str | PathLike[str] | None) -> Path:
    """The file that is meant: None is the default, a text of `NAMES` the encoder that ships, all else a path.

    A folder `rooms` of one's own is `./rooms`, or a `Path`.
    """
    if name is None:
        return weights_file(DEFAULT)
    return weights_file(name) if isinstance(name, str) and name in NAMES else Path(name)


def choice_note(name: str | PathLike[str] | None) -> str | None:
    """One sentence where a text means the encoder that ships although a path of that name exists."""
    if isinstance(name, str) and name in NAMES and Path(name).exists():
        return f"'{name}' is the encoder that ships with ponder; ./{name} is the path here of that name"
    return None
