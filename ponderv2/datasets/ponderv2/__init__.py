"""Folders processed by the published code of PonderV2, read in place."""
