"""Readers of data sets, one folder each."""
