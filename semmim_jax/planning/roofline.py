"""Time of a step from peak figures: a bound for planning, not a measurement.

An instruction takes the longer of its products at the chip's peak and its HBM traffic at full
bandwidth. Collectives, every link busy, and copies to the chip run beside the instructions between
their start and the place that waits for them in the compiled schedule (schedule.py).
"""

import dataclasses

from semmim_jax.planning.chips import Chip
from semmim_jax.planning.costs import Costs
from semmim_jax.planning.schedule import Rates, busy_seconds, seconds

DAY = 86_400.0  # seconds


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Times in seconds a step, and what follows for the run.

    Attributes:
      compute, hbm, interconnect: of everything at its own peak.
      bound: the longest of the three: no program with these costs is faster.
      step: the prediction.
      exposed: what of it the device waits for others, or for copies.
      mfu: the model's FLOPs, no recomputation, over what the chips could do in `step`.
      samples_per_second: of all devices.
      days, chip_hours: of the whole run.
    """

    compute: float
    hbm: float
    interconnect: float
    bound: float
    step: float
    exposed: float
    mfu: float
    samples_per_second: float
    days: float
    chip_hours: float


def estimate(
    costs: Costs,
    chip: Chip,
    *,
    interconnect: float,
    model_flops: float,
    batch_size: int,
    steps: int,
    devices: int,
) -> Estimate:
    """Predicts a step and a run.

    Args:
      costs: of one device.
      chip: its peaks.
      interconnect: bytes a second into the chip.
      model_flops: of a step, all devices together.
      batch_size: global.
      steps: of the run.
      devices: number of chips.
    """
    compute, hbm = costs.flops / chip.flops, costs.hbm_bytes / chip.hbm_bandwidth
    links = costs.collective_bytes / interconnect if costs.collective_bytes else 0.0
    rates = Rates(flops=chip.flops, hbm=chip.hbm_bandwidth, links=interconnect)
    bound = max(compute, hbm, links)
    step = max(bound, seconds(costs.schedule, rates))
    return Estimate(
        compute=compute,
        hbm=hbm,
        interconnect=links,
        bound=bound,
        step=step,
        exposed=step - busy_seconds(costs.schedule, rates),
        mfu=model_flops / (devices * chip.flops * step),
        samples_per_second=batch_size / step,
        days=steps * step / DAY,
        chip_hours=steps * step * devices / 3600,
    )
