"""What the settings of every data set have in common. Never imports torch."""

from __future__ import annotations

from typing import ClassVar

from ponderv2.config import StrictConfig


class DatasetSettings(StrictConfig):
    """Settings of one data set: a `kind`, a `path` where there are files, and what its reader needs.

    The docstrings of class and fields are the help of `ponder prepare KIND`.
    """

    pretrain_preset: ClassVar[str | None] = None
    """Suggested at the end of `prepare`, for scenes with frames; None = the usual one of `pretrain`."""
    finetune_preset: ClassVar[str | None] = None
    """Suggested where no scene has frames, so that there is nothing to render; trained from scratch."""

    @classmethod
    def next_command(cls, with_frames: bool) -> tuple[str, ...]:
        """Next command and options for the prepared scenes."""
        if not with_frames and cls.finetune_preset is not None:
            return ("finetune", "--preset", cls.finetune_preset, "--scratch")
        return ("pretrain",) if cls.pretrain_preset is None else ("pretrain", "--preset", cls.pretrain_preset)
