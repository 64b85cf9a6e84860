"""Pickled dicts of plain arrays, as torch and pickle write them, read without running anything in them."""

from ponderv2.scenes.safe_pickle.files import PickledFile, read_pickled

__all__ = ["PickledFile", "read_pickled"]
