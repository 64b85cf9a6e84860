"""An encoder without renderer or head: it gives features and nothing else."""

from __future__ import annotations

from ponderv2.models.encoder_only_config import EncoderOnlyConfig
from ponderv2.models.task_model import TaskModel


class EncoderOnlyModel(TaskModel):
    """`backbone` and, of a prompted encoder, `embedding_table`."""

    def __init__(self, config: EncoderOnlyConfig) -> None:
        super().__init__(config)
        self.config = config
        self.freeze()
