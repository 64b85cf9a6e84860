"""Tests of SUN RGB-D."""
