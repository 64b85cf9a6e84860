"""Tests of the reader of RGB-D recordings."""
