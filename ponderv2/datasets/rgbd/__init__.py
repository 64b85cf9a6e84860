"""Posed RGB-D recordings: one file per layout."""
