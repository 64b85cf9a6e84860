"""One reader per kind of raw data."""
