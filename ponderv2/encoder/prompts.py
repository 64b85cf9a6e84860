"""Datasets that a model distinguishes, by name: conditions of point prompt training. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from ponderv2.errors import CheckpointError

FALLBACK = "ScanNet"
"""Dataset whose prompt is used for data of a dataset that the model does not know."""


@dataclass(frozen=True)
class Prompts:
    """Names of datasets, in the order of the normalisations and of the embeddings that belong to them.

    Where no dataset is distinguished every name is known, and its index is 0.
    """

    names: tuple[str, ...] = ()
    """In the order of the encoder's normalisations; empty: it has one for all."""
    rows: tuple[str, ...] = ()
    """In the order of the rows of `embedding_table`; empty: there is no such table."""
    fixed: str | None = None
    """Name that takes the place of that of the data: the prompt of a new dataset."""

    def __bool__(self) -> bool:
        """Whether datasets are distinguished."""
        return bool(self.names or self.rows)

    @property
    def known(self) -> tuple[str, ...]:
        """Datasets that all parts have; empty where none is distinguished."""
        return tuple(name for name in self.names or self.rows if not self.rows or name in self.rows)

    def name(self, condition: str) -> str:
        """The dataset whose prompt stands for `condition`."""
        return self.fixed or condition

    def knows(self, condition: str) -> bool:
        """Whether there is a prompt for a dataset, or none is needed."""
        return not self or self.name(condition) in self.known

    def index(self, condition: str) -> int:
        """Position among the normalisations. Raises ValueError for an unknown dataset."""
        return self._position(self.names, condition)

    def row(self, condition: str) -> int:
        """Position in the embedding table. Raises ValueError for an unknown dataset."""
        return self._position(self.rows, condition)

    def _position(self, names: tuple[str, ...], condition: str) -> int:
        if not self.knows(condition):
            known = ", ".join(self.known)
            raise ValueError(f"the model knows the datasets {known}, not '{self.name(condition)}'")
        return names.index(self.name(condition)) if names else 0

    def choose(self, wanted: str | None, dataset: str | None = None) -> str:
        """Dataset prompt for some data: the one asked for, else that of the model, of the data, of ScanNet.

        Raises:
            CheckpointError: the model does not know the one that was asked for.
        """
        known = self.known
        if not known:
            return wanted or dataset or ""
        if wanted is not None and wanted not in known:
            raise CheckpointError(
                f"the encoder knows the datasets {', '.join(known)}, not '{wanted}'",
                fix=f"--condition {known[0]}",
            )
        for name in (wanted, self.fixed, dataset, FALLBACK):
            if name in known:
                return str(name)
        return known[0]
