"""One file per command. Each parses, calls a workflow and prints; torch loads only inside."""
