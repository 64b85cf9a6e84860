"""Settings of the protocols that compare encoders without training them. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import SplitName, StrictConfig
from ponderv2.data.config import LabelBudgetConfig


class ProbeDataConfig(StrictConfig):
    """The labels that a probe may see."""

    train_split: SplitName = "train"
    """Scenes whose labels the probes are fitted on."""
    budget: LabelBudgetConfig = LabelBudgetConfig()
    """Labelled scenes and points among them; all of them by default."""
    label_field: str | None = None
    """Name of the label array; the scene store knows its usual one."""
    hide: tuple[Literal["color", "normal", "intensity"], ...] = ()
    """Inputs that are hidden from encoders, as if the scenes did not have them."""
    n_points: PositiveInt = 20_000
    """Labelled voxels that are kept at most, as even numbers of every scene and class as there are; of each
    scene up to 20 in any case. Bounds memory and time."""
    seed: NonNegativeInt = 0
    """Chooses among more labelled voxels than that, and draws the weights of the random encoder."""


class NeighboursConfig(StrictConfig):
    """The k-nearest-neighbour probe, as DINO evaluates features: a vote weighted by exp(cosine / T)."""

    k: PositiveInt = 20
    temperature: PositiveFloat = 0.07


class LinearProbeConfig(StrictConfig):
    """Logistic regression on the features as they are, fitted until it has converged."""

    penalty: PositiveFloat | None = None
    """On the squared weights, as 1 / C of scikit-learn. None: the best of a few on held-out training scenes,
    with and without class weights."""
    balanced: bool = True
    """Every class counts the same, where the penalty is given."""


class PurityConfig(StrictConfig):
    """Share of a point's nearest neighbours in feature space that have its label."""

    k: PositiveInt = 10
    distance: NonNegativeFloat | None = 1.0
    """Neighbours in the same scene lie at least so far away, metres; null: they are of other scenes."""
    n_points: PositiveInt = 20_000
    """Labelled voxels that are compared at most, as even numbers of every scene and class as there are."""
