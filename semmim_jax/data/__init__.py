"""Input side: sources, transforms, tokeniser and batches. Pure numpy; nothing here imports jax."""
