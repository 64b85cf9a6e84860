"""Structured3D, read from its zip archives."""
