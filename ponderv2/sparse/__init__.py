"""Sparse convolution, for encoder and heads alike."""
