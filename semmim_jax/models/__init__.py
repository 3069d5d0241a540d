"""The network: towers, fusion encoder, decoder and heads as flax.linen modules."""
