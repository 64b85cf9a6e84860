"""The command line of ponder: parse, call the library, print."""
