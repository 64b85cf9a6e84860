"""The data: raw captures, the scene store, augmentation, sampling, batches."""
