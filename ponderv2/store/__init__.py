"""Prepared scenes on disk: written whole or not at all, read without copying."""
