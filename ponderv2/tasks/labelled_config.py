"""Settings that all models with a class per point have in common. Never imports torch."""

from __future__ import annotations

from abc import abstractmethod

from ponderv2.models.config import EncoderModelConfig


class ClassesConfig(EncoderModelConfig):
    """An encoder and a head; the number of classes, where it is left open, is that of the scenes."""

    @abstractmethod
    def classes_of(self, condition: str) -> int | None:
        """Number of classes for a dataset; None where it follows from the scenes."""

    @abstractmethod
    def with_classes(self, condition: str, n_classes: int, names: tuple[str, ...] = ()) -> ClassesConfig:
        """The same model for a number of classes of a dataset."""

    @abstractmethod
    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option of a command that gives the model a number of classes for a dataset."""
