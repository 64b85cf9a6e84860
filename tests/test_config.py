"""What two sets of settings differ in, as far as it has an effect on what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ponderv2.config import NO_EFFECT, StrictConfig, differences


class Slow(StrictConfig):
    kind: Literal["slow"] = "slow"
    rate: float = 0.1


class Fast(StrictConfig):
    kind: Literal["fast"] = "fast"
    rate: float = 0.1
    log: Annotated[bool, NO_EFFECT] = True


class Run(StrictConfig):
    seed: int = 0
    folder: Annotated[str, NO_EFFECT] = "here"
    optimiser: Annotated[Slow | Fast, Field(discriminator="kind")] = Fast()
    factors: dict[str, float] = Field(default_factory=dict)


def stored(**changes: object) -> dict[str, object]:
    return Run().model_dump(mode="json") | changes


def test_equal_settings_do_not_differ() -> None:
    assert differences(stored(), Run()) == []


def test_marked_settings_may_differ_at_any_depth() -> None:
    now = Run(folder="there", optimiser=Fast(log=False))
    assert differences(stored(), now) == []


def test_other_settings_are_named_with_their_path() -> None:
    now = Run(seed=1, optimiser=Slow(rate=0.2), factors={"head": 2.0})
    assert differences(stored(), now) == [
        "factors",
        "optimiser.kind",
        "optimiser.log",
        "optimiser.rate",
        "seed",
    ]


def test_settings_of_another_version_differ() -> None:
    assert differences(stored(gone=1), Run()) == ["gone"]
    assert differences({}, Run(seed=1, factors={"head": 2.0})) == ["factors", "seed"]


def test_settings_that_did_not_exist_yet_had_their_default() -> None:
    assert differences({"seed": 0}, Run()) == []
