"""An encoder without renderer or head: it has features and no results of its own."""
