"""Processes are forked from this one, which imports everything once and computes with one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.campaigns.faults.presets import warm


@pytest.fixture(autouse=True, scope="package")
def _warm(cache: None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    warm()
    yield
    torch.set_num_threads(before)
