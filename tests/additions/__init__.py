"""A member of every kind that docs/architecture.md says how to add, added to a copy of the program."""
