"""Detection of objects as oriented boxes."""
