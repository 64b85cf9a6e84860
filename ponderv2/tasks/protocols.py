"""The protocols by which encoders are compared, by name. Never imports torch."""

from __future__ import annotations

PROBES = ("purity", "knn", "linear")
"""What is measured on the features of an encoder as it is: at most a linear layer is fitted to them."""
TRAINED = ("decoder", "full")
"""What `ponder finetune --protocol` trains, and `ponder eval` measures by the run that it wrote."""
PROTOCOLS = (*PROBES, *TRAINED)
