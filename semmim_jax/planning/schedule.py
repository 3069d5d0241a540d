"""The order in which a compiled program works and communicates, and how long that takes.

Products and memory keep a device busy one instruction after the other. A collective, or a copy to
the chip, that starts and is waited for later runs beside them, on links or copy engines that serve
one after the other. A program waits only where it reads a result that is not there.
"""

from collections.abc import Sequence
from typing import NamedTuple

LINKS, COPIES = 'links', 'copies'


class Work(NamedTuple):
    """An instruction: FLOPs and HBM bytes of one run, runs a step, and what of the model it is."""

    flops: float
    bytes: float
    times: int
    scope: str = ''


class Start(NamedTuple):
    """Something starts on the links or the copy engines: bytes that one device receives."""

    key: str
    engine: str
    bytes: float


class Wait(NamedTuple):
    """What has started under this key is needed from here on."""

    key: str


class Loop(NamedTuple):
    """Events that repeat."""

    times: int
    events: 'Sequence[Event]'


Event = Work | Start | Wait | Loop


class Rates(NamedTuple):
    """FLOPs and bytes a second of one device."""

    flops: float
    hbm: float
    links: float


def busy_seconds(events: Sequence[Event], rates: Rates) -> float:
    """Time of the instructions alone, as if nothing was waited for."""
    total = 0.0
    for event in events:
        if isinstance(event, Work):
            total += _seconds_of(event, rates)
        elif isinstance(event, Loop):
            total += event.times * busy_seconds(event.events, rates)
    return total


def seconds(events: Sequence[Event], rates: Rates) -> float:
    """Time from the first event to the last, with what starts early hidden behind work.

    A loop is taken to finish in each trip what it starts.
    """
    now, free, done = 0.0, {LINKS: 0.0, COPIES: 0.0}, {}
    speed = {LINKS: rates.links, COPIES: rates.hbm}
    for event in events:
        if isinstance(event, Work):
            now += _seconds_of(event, rates)
        elif isinstance(event, Start):
            begun = max(now, free[event.engine])
            free[event.engine] = done[event.key] = begun + event.bytes / speed[event.engine]
        elif isinstance(event, Wait):
            now = max(now, done.pop(event.key, now))
        else:
            now += event.times * seconds(event.events, rates)
    return max(now, *free.values()) if done else now


def _seconds_of(work: Work, rates: Rates) -> float:
    """Of one run: the longer of products at peak and HBM traffic at full bandwidth."""
    return max(work.flops / rates.flops, work.bytes / rates.hbm)
