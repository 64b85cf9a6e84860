"""Settings of instance segmentation: class and offset to the instance centre of every point. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from ponderv2.heads.config import GroupingConfig
from ponderv2.tasks.labelled_config import ClassesConfig

IGNORED_CLASSES = {200: (0, 2)}
"""Wall and floor of published models, by their number of classes, where they are not the classes 0 and 1."""


class InstancesModelConfig(ClassesConfig):
    """An encoder and the heads of PointGroup."""

    kind: Literal["instances"] = "instances"
    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""
    ignored_classes: tuple[NonNegativeInt, ...] = (0, 1)
    """Classes without instances: neither learned, nor predicted, nor evaluated. 0 and 1 are wall and floor
    of the 20 classes of ScanNet; of its 200 classes they are 0 and 2."""
    grouping: GroupingConfig = GroupingConfig()

    def without_files(self) -> InstancesModelConfig:
        """The same model as it stands in a checkpoint; it needs no files."""
        return self

    def classes_of(self, condition: str) -> int | None:
        """Number of classes, the same for every dataset; None where it follows from the scenes."""
        return self.n_classes

    def with_classes(
        self, condition: str, n_classes: int, names: tuple[str, ...] = ()
    ) -> InstancesModelConfig:
        """The same model for a number of classes."""
        return self.model_copy(update={"n_classes": n_classes})

    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option that gives the model a number of classes."""
        return f"--set model.n_classes={n_classes}"
