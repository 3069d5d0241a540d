"""SCL pre-training."""
