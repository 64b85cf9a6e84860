"""Folders that other programs processed, read in place: one file per layout, nothing is written into them."""
