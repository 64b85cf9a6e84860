"""Settings of task heads, their losses, their text embeddings and their clustering. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ponderv2.config import StrictConfig
from ponderv2.datasets.vocabulary import CLASS_NAMES, TEMPLATES


class OrthogonalEmbeddingsConfig(StrictConfig):
    """Mutually orthogonal directions in place of text: nothing has to be installed."""

    kind: Literal["orthogonal"] = "orthogonal"


class FileEmbeddingsConfig(StrictConfig):
    """Read from a file."""

    kind: Literal["file"] = "file"
    path: Path
    """`.npy` or `.safetensors` [class, channel]; `ponder text-embeddings` writes the latter."""


class ClipEmbeddingsConfig(StrictConfig):
    """Computed by the text half of CLIP, once: then they are read from the user's cache."""

    kind: Literal["clip"] = "clip"
    model: str
    """Folder of a model in the format of `transformers`; or its name on the Hugging Face hub, the only
    case where the network is used. Published: openai/clip-vit-base-patch16."""
    templates: tuple[str, ...] = TEMPLATES
    """Sentences that `{}` leaves a place for the name in; embeddings are averaged over them."""
    cache: Path | None = None
    """Folder of computed embeddings; by default PONDER_CACHE or ~/.cache/ponder."""

    @field_validator("templates")
    @classmethod
    def _have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [template for template in templates if template.count("{}") != 1]
        if wrong or not templates:
            raise ValueError(f"a template has one {{}} where the name goes, got {wrong or templates}")
        return templates


def _from_short_form(value: Any) -> Any:
    """`orthogonal` or the path of a file."""
    if value == "orthogonal":
        return {"kind": "orthogonal"}
    return {"kind": "file", "path": value} if isinstance(value, str | Path) else value


EmbeddingsConfig = Annotated[
    Annotated[
        OrthogonalEmbeddingsConfig | FileEmbeddingsConfig | ClipEmbeddingsConfig, Field(discriminator="kind")
    ],
    BeforeValidator(_from_short_form),
]


class GroupingConfig(StrictConfig):
    """How points become objects once each has moved to the centre of its object; as published."""

    radius: PositiveFloat = 1.5
    """Points of one class nearer to each other than this are of one object, voxels."""
    min_linked: PositiveInt = 50
    """Smaller groups are dropped, voxels."""
    more_than: NonNegativeInt = 100
    """Objects have more voxels than this."""


class SegmentationLossConfig(StrictConfig):
    """Terms of the loss; 1 : 1 as published for fine-tuning, without Lovász as published from scratch."""

    cross_entropy: NonNegativeFloat = 1.0
    """Weight of the mean cross-entropy of the labelled points."""
    lovasz: NonNegativeFloat = 1.0
    """Weight of the Lovász-softmax term, which aims at intersection over union."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the cross-entropy's target that is spread evenly over all classes."""
    class_weights: tuple[NonNegativeFloat, ...] | Path | None = None
    """Weight of each class in the cross-entropy: numbers, or a file of numbers (`.npy` or text).

    The mean is then over the weights of the labelled points, as torch does it."""


class ClassesHeadConfig(StrictConfig):
    """One layer for the classes of all datasets."""

    n_classes: PositiveInt | None = None
    """None: as many as the scenes have."""

    def classes_of(self, condition: str) -> int | None:
        """Classes of every dataset; None where they follow from the scenes."""
        return self.n_classes

    def with_classes(self, condition: str, n_classes: int) -> ClassesHeadConfig:
        """The same head for a number of classes."""
        return self.model_copy(update={"n_classes": n_classes})

    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option that gives the head a number of classes."""
        return f"--set model.head.n_classes={n_classes}"

    def knows(self, condition: str) -> bool:
        """Whether there is a layer for a dataset."""
        return True


class LinearHeadConfig(ClassesHeadConfig):
    """A class per point by one linear layer."""

    kind: Literal["linear"] = "linear"
    normalise: bool = False
    """Batch normalisation of the features first: a fair linear probe of encoders whose scales differ."""


class FinalHeadConfig(ClassesHeadConfig):
    """A class per point by a 1x1x1 sparse convolution: the last layer of the published networks.

    It computes what a linear layer does; its weight is stored the way the published files store it.
    """

    kind: Literal["final"] = "final"


class LanguageHeadConfig(StrictConfig):
    """Points are compared with text embeddings of class names, which several datasets share (PPT-v1m1)."""

    kind: Literal["language"] = "language"
    n_texts: PositiveInt | None = None
    """Rows of the text embeddings: 36 published. None: one per class of the only dataset."""
    n_channels: PositiveInt = 512
    embeddings: EmbeddingsConfig = OrthogonalEmbeddingsConfig()
    """Of the texts: by a CLIP model, from a file, or orthogonal directions. A checkpoint that is fine-tuned
    brings its own in place of the last."""
    class_names: tuple[str, ...] | None = None
    """The texts, for CLIP. None: the shared vocabulary where n_texts is 36, else the names of the dataset."""
    valid_index: dict[str, tuple[NonNegativeInt, ...]] = Field(default_factory=dict)
    """For each dataset the text of each of its labels. A dataset that is not named uses all, in order."""

    @model_validator(mode="after")
    def _texts_exist(self) -> LanguageHeadConfig:
        for condition, rows in self.valid_index.items():
            if self.n_texts is None:
                raise ValueError("valid_index chooses among n_texts texts: give their number")
            if not rows or max(rows) >= self.n_texts:
                raise ValueError(f"valid_index of {condition} must name rows 0 to {self.n_texts - 1}")
        if self.class_names is not None and len(self.class_names) != self.n_texts:
            raise ValueError(f"{len(self.class_names)} class_names, but n_texts is {self.n_texts}")
        return self

    @property
    def names(self) -> tuple[str, ...] | None:
        """The texts, where they are known."""
        shared = CLASS_NAMES if self.n_texts == len(CLASS_NAMES) else None
        return self.class_names or shared

    def classes_of(self, condition: str) -> int | None:
        """Classes of a dataset; None where they follow from the scenes."""
        return len(self.valid_index[condition]) if condition in self.valid_index else self.n_texts

    def with_classes(self, condition: str, n_classes: int) -> LanguageHeadConfig:
        """The same head, with one text per class unless set otherwise."""
        return self if self.n_texts is not None else self.model_copy(update={"n_texts": n_classes})

    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option that gives a dataset a number of classes."""
        return (
            f"--set model.head.valid_index.{condition}=[...] with the text of each of the {n_classes} classes"
        )

    def knows(self, condition: str) -> bool:
        """A dataset that is not named uses all texts."""
        return True


class DecoupledHeadConfig(StrictConfig):
    """A linear layer of its own for each dataset (PPT-v1m2)."""

    kind: Literal["decoupled"] = "decoupled"
    n_classes: dict[str, PositiveInt] = Field(
        default_factory=lambda: {"Structured3D": 25, "ScanNet": 20, "S3DIS": 13}
    )
    """Classes of each dataset, in the order of the layers `seg_heads.0`, `seg_heads.1`, ..."""

    @model_validator(mode="after")
    def _not_empty(self) -> DecoupledHeadConfig:
        if not self.n_classes:
            raise ValueError("n_classes names no dataset")
        return self

    def classes_of(self, condition: str) -> int | None:
        """Classes of a dataset; None where it has no layer."""
        return self.n_classes.get(condition)

    def with_classes(self, condition: str, n_classes: int) -> DecoupledHeadConfig:
        """The same head, with a layer behind the others for a dataset that was not named."""
        if condition in self.n_classes:
            return self
        return self.model_copy(update={"n_classes": {**self.n_classes, condition: n_classes}})

    def classes_option(self, condition: str, n_classes: int | str) -> str:
        """The option that gives a dataset a number of classes."""
        return f"--set model.head.n_classes.{condition}={n_classes}"

    def knows(self, condition: str) -> bool:
        """Whether there is a layer for a dataset."""
        return condition in self.n_classes
