"""Folders processed by Pointcept, read in place."""
