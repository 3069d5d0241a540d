"""What is drawn beside the training curves."""

import math

import pytest

from semmim_jax.evaluators import suite
from semmim_jax.evaluators.report import Report


def test_chance_of_training_losses_by_hand():
    reports = {
        'losses': Report({}, chance={'itm_accuracy': 2 / 3, 'mlm_accuracy': 0.2}),
        'patterns': Report({'codes': 128}),
        'retrieval': Report({}, chance={'tr@1_itc': 0.01}),
    }
    # Two pairs of three do not match: H = log 3 - 2/3 log 2. Even guesses among 128 codes: 7 log 2.
    assert suite.training_chance(reports) == pytest.approx(
        {
            'itm_accuracy': 2 / 3,
            'mlm_accuracy': 0.2,
            'loss_itm': math.log(3) - 2 / 3 * math.log(2),
            'loss_agreement': 7 * math.log(2),
            'loss_mim': 7 * math.log(2),
        }
    )
    assert suite.training_chance({'captions': Report({})}) == {}
