"""The outcome of a drill, and the table of all outcomes."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One drill.

    Attributes:
      drill: its name.
      done: what was done to the run.
      lost: what that cost.
      seconds: of the drill.
      failures: promises that the run did not keep; () if it kept all.
    """

    drill: str
    done: str
    lost: str
    seconds: float
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = 'FAILED' if self.failures else 'ok'
        return f'| {self.drill} | {self.done} | {self.lost} | {self.seconds:.0f} | {verdict} |'


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of the drills, and below it what failed."""
    lines = ['| drill | what was done | what was lost | seconds | |', '|---|---|---|---|---|']
    lines += map(str, outcomes)
    lines += [f'FAILED {x.drill}: {failure}' for x in outcomes for failure in x.failures]
    return '\n'.join(lines)
