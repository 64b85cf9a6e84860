"""Settings of several datasets that take turns in one run. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field, PositiveInt, ValidationError

from ponderv2.config import StrictConfig
from ponderv2.scenes.config import PointDataConfig, SplitName

Data = TypeVar("Data", bound=PointDataConfig)

COMMON = ("voxel", "features", "cache_megabytes", "mix_probability")
"""Settings of `data` that all datasets of a run share."""


class DatasetPartConfig(StrictConfig):
    """One of several datasets: every batch comes from one of them."""

    scenes: Path
    """Folder of prepared scenes. `--data DIR` looks for a folder of the same name in DIR."""
    ratio: PositiveInt = 1
    """Consecutive steps of this dataset: 4, 2, 1 as published for Structured3D, ScanNet, S3DIS."""
    train_split: SplitName | None = None
    """By default that of the run."""
    val_split: SplitName | None = None
    label_field: str | None = None
    """Name of the label array; by default that of the run, or the usual one of the dataset."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Settings of `data` that differ for this dataset, such as augment, sphere_crop, views or budget."""


@dataclass(frozen=True)
class Part(Generic[Data]):
    """One dataset of a run, with all its settings."""

    scenes: Path
    ratio: int
    train_split: str
    val_split: str
    data: Data


def parts_of(whole: Part[Data], datasets: Sequence[DatasetPartConfig]) -> tuple[Part[Data], ...]:
    """Every dataset with its settings; `whole`, that of a run with one dataset, fills what they leave out.

    Raises:
        ValueError: a dataset has settings that do not exist or that all have to share.
    """
    if not datasets:
        return (whole,)
    share = whole.data.model_copy(update={"cache_megabytes": whole.data.cache_megabytes // len(datasets)})
    return tuple(
        Part(
            scenes=dataset.scenes,
            ratio=dataset.ratio,
            train_split=dataset.train_split or whole.train_split,
            val_split=dataset.val_split or whole.val_split,
            data=_data(share, dataset, f"datasets.{number}"),
        )
        for number, dataset in enumerate(datasets)
    )


def _data(data: Data, dataset: DatasetPartConfig, place: str) -> Data:
    fixed = [name for name in dataset.data if name in COMMON]
    if fixed:
        raise ValueError(f"{place}.data.{fixed[0]}: all datasets of a run share it; set data.{fixed[0]}")
    own = dict(dataset.data) | ({"label_field": dataset.label_field} if dataset.label_field else {})
    try:
        return type(data).model_validate(data.model_dump() | own)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}.data.{key}: {first['msg']}") from error
