"""The collapse alarm: a line in the log when all inputs get nearly the same codes.

Balanced targets use all codes evenly even where the teacher gives every input the same logits. What
shows such a collapse is the distribution before balancing: the entropy of its mean over a batch is
then far under the log of the number of codes (docs/method.md section 6).
"""

import math
from collections.abc import Mapping
from typing import Any

WATCHED = '_raw_mean_entropy'  # how the names of such metrics end, see tasks/pretrain.py


class CollapseAlarm:
    """Prints a line when a watched entropy falls under its bound, and one when it is back above.

    The bound is `train.collapse_alarm` x log(min(codes, batch size)), in nats: a small
    batch cannot use all codes. The inputs of a fresh head look alike, so it may be under the bound
    too: the alarm is silent until `optim.warmup_steps` are done.

    Args:
      config: the experiment.
      active: False on processes that print nothing.
    """

    def __init__(self, config: Any, *, active: bool):
        self._bound = 0.0
        if config.train.collapse_alarm:  # a model without codes has no alarm
            greatest = math.log(min(config.model.encoding.codes, config.train.batch_size))
            self._bound = config.train.collapse_alarm * greatest
        self._first_step = config.optim.warmup_steps
        self._active = active
        self._ringing: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Looks at the metrics of a logged step; those of a skipped step, NaN, change nothing."""
        if not self._active or step < self._first_step:
            return
        for name, value in metrics.items():
            if not name.endswith(WATCHED) or not math.isfinite(value):
                continue
            low = value < self._bound
            if low == (name in self._ringing):
                continue
            self._ringing ^= {name}
            line = 'ALARM, the codes collapse' if low else 'alarm over'
            bound = f'train.collapse_alarm is {self._bound:.3g} nats'
            print(f'step {step}: {line}: {name} {value:.3g}, {bound}', flush=True)
