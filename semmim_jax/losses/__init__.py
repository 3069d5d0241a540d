"""Loss functions: arrays in, sums and counts out, in float32 (docs/method.md)."""
