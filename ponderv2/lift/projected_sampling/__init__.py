"""Cells of a volume look their features up in images."""
