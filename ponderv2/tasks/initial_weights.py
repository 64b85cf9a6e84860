"""The weights that fine-tuning starts from: encoder and prompts of a checkpoint, and what the task adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ponderv2.errors import CheckpointError, MismatchError
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.tasks.task import Task
from ponderv2.training.open_checkpoint import OpenCheckpoint
from ponderv2.training.weights import MatchReport, load_weights

TAKE_ENCODER = "--set model.encoder=null takes the encoder of the checkpoint"
NORMS, TABLE = ".bns.", "embedding_table.weight"


def load_encoder(task: Task[Any], model: nn.Module, checkpoint: OpenCheckpoint) -> MatchReport:
    """Copies the encoder and its prompts, and what else the task starts from (`Task.initial_weights`).

    Normalisations and prompts of several datasets are taken by the names of the datasets.

    Raises:
        MismatchError: a part of the encoder is missing or has another shape.
        CheckpointError: it knows other datasets than the encoder of the settings.
    """
    stored = checkpoint.weights
    kept = {
        name: value for name, value in stored.items() if name.startswith(("backbone.", "embedding_table."))
    }
    if isinstance(model, EncoderModel):
        kept = _of_these_datasets(kept, model, checkpoint)
    shared, own = task.initial_weights(stored), model.state_dict()
    kept |= {name: value for name, value in shared.items() if name in own and own[name].shape == value.shape}
    try:
        return load_weights(
            model, kept, source=str(checkpoint.path), required_prefixes=("backbone.",), least_share=1.0
        )
    except MismatchError as error:
        raise MismatchError(error.message, error.rows, fix=TAKE_ENCODER) from error


def _of_these_datasets(
    state: Mapping[str, Tensor], model: EncoderModel, checkpoint: OpenCheckpoint
) -> dict[str, Tensor]:
    """Normalisations and prompts in the order in which the model names the datasets."""
    wanted, table = model.prompts.names, model.prompts.rows
    norms, rows = checkpoint.encoder_conditions, checkpoint.conditions
    result = dict(state)
    if wanted and norms and wanted != norms:
        result = _norms_of(result, _places(norms, wanted, checkpoint))
    if table and TABLE in result and rows and table != rows and len(rows) == len(result[TABLE]):
        result[TABLE] = result[TABLE][_places(rows, table, checkpoint)]
    return result


def _places(known: Sequence[str], wanted: Sequence[str], checkpoint: OpenCheckpoint) -> list[int]:
    missing = [name for name in wanted if name not in known]
    if missing:
        raise CheckpointError(
            f"{checkpoint.path} knows the datasets {', '.join(known)}, not '{missing[0]}'", fix=TAKE_ENCODER
        )
    return [known.index(name) for name in wanted]


def _norms_of(state: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    """Normalisation i becomes what number places[i] was; the others are left out."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        before, found, after = name.partition(NORMS)
        if not found:
            result[name] = value
            continue
        number, _, rest = after.partition(".")
        for new, old in enumerate(places):
            if old == int(number):
                result[f"{before}{NORMS}{new}.{rest}"] = value
    return result
