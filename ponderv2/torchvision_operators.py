"""Makes timm and transformers importable beside a torchvision whose compiled operators do not load.

torch for CPUs comes from another index than torchvision's usual wheels, which are built for CUDA: their
library of operators then finds no CUDA, and `import torchvision` fails at the first operator that it
describes. timm imports torchvision, and transformers does where it is installed. Neither uses these operators
in a network.
"""

from __future__ import annotations

import functools
import importlib

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def repair_torchvision() -> None:
    """Declares torchvision's missing operators, without code behind them, where its import fails for them.

    Call it before timm or transformers is imported. Where torchvision is sound or not installed, nothing is
    changed. A declared operator raises NotImplementedError when it is called.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        _declare()
        importlib.import_module("torchvision")


def _declare() -> None:
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", SIGNATURE)
