"""Files in and out as NumPy arrays and plain values; nothing here knows a scene."""
