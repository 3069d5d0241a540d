"""How far a frequency may lie from its probability."""

import math

import numpy as np

DELTA = 1e-9  # probability with which one frequency may break its bound


def assert_frequency(hits, draws, probability):
    """Fails where hits / draws is further from `probability` than chance explains.

    Bernstein's inequality for independent draws: each element breaks the bound with a probability
    below `DELTA`, whatever the number of draws and however small the probability.

    Args:
      hits: number of hits, any shape.
      draws: number of independent draws.
      probability: expected, of the same shape or a scalar.
    """
    p = np.asarray(probability, np.float64)
    surprise = math.log(2 / DELTA)
    # Bernstein's bound solved for the deviation of the mean.
    linear = surprise / (3 * draws)
    bound = linear + np.sqrt(linear**2 + 2 * surprise * p * (1 - p) / draws)
    # Probabilities are sums in float32 at best.
    bound = bound + 1e-6
    deviation = np.abs(np.asarray(hits, np.float64) / draws - p)
    worst = np.unravel_index((deviation - bound).argmax(), deviation.shape)
    assert (deviation <= bound).all(), (
        f'frequency {(np.asarray(hits) / draws)[worst]} for probability '
        f'{np.broadcast_to(p, deviation.shape)[worst]} at {worst} of {draws} draws'
    )
