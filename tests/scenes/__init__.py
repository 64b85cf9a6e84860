"""Tests of the scenes package."""
