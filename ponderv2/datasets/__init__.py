"""Data sets, one folder each: settings, reader, class names. `kinds.py` lists them."""
