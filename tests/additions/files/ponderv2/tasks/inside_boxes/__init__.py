"""Which points lie inside a box: a toy task."""
