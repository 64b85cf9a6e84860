"""Generated rooms as a data set."""
