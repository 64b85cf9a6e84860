"""Class names, id maps and palettes: one file per benchmark."""
