"""Weights of others into ours and back: a table a model family, read in both directions."""
