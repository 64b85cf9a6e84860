"""3D pre-training by neural rendering: encoder, renderer, heads, and the workflows around them."""

from ponderv2.version import __version__

__all__ = ["__version__"]
