"""The weights that pre-training starts from: parts of models that were pre-trained before, alone."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from ponderv2.encoder.kinds import EncoderConfig
from ponderv2.errors import CheckpointError, MismatchError
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.weights import load_weights

BOTH = "points_and_images"


def load_parts(model: EncoderModel, checkpoints: Sequence[OpenCheckpoint]) -> list[str]:
    """Copies the encoders of the checkpoints, and what else fits; one sentence for each checkpoint.

    A model with branches for points and for images takes an encoder of each kind into its branch, and the
    lift of images into that of its lift. Projection and renderer are those of the first checkpoint that has
    them in the same shapes.

    Raises:
        CheckpointError: an encoder does not fit (MismatchError), or two are for one branch.
    """
    notes: list[str] = []
    taken: set[str] = set()
    used: set[str] = set()
    for one in checkpoints:
        branch = _branch(model, one)
        if branch in used:
            raise CheckpointError(
                f"{one.path} is a second encoder of the same kind", fix="give --from once for each branch"
            )
        used.add(branch)
        names = {"backbone.": f"backbone.{branch}", "lift.": f"lift.{branch}"}
        state = {_renamed(name, names): value for name, value in one.our_weights().items()}
        own = model.state_dict()
        fitting = {
            name: value
            for name, value in state.items()
            if name not in taken and name in own and own[name].shape == value.shape
        }
        encoder = {name: value for name, value in state.items() if name.startswith(names["backbone."])}
        try:
            report = load_weights(
                model,
                {**fitting, **encoder},
                source=str(one.path),
                required_prefixes=(names["backbone."],),
                least_share=1.0,
            )
        except MismatchError as error:
            raise MismatchError(
                error.message,
                error.rows,
                fix="give the branch the settings of the encoder in that checkpoint",
            ) from error
        taken.update(report.matched)
        others = sum(not name.startswith("backbone.") for name in report.matched)
        place = f" as the branch of {branch.rstrip('.')}" if branch else ""
        notes.append(f"encoder from {one.path}{place}, and {others} of {len(own)} entries beside it")
    return notes


def _branch(model: EncoderModel, checkpoint: OpenCheckpoint) -> str:
    """Where in `backbone` the encoder of a checkpoint goes: everywhere, or `points.`, `images.`."""
    try:
        stored = TypeAdapter(EncoderConfig).validate_python(checkpoint.encoder_settings)
    except ValidationError as error:
        raise CheckpointError(f"{checkpoint.path} does not say what its encoder looks like") from error
    wanted = model.encoder_config.needs
    if stored.needs == wanted:
        return ""
    if wanted != BOTH:
        raise CheckpointError(
            f"the encoder of {checkpoint.path} takes {stored.needs}, that of the settings {wanted}",
            fix="--set model.encoder.kind=points_and_images has branches for both",
        )
    return f"{stored.needs}."


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
