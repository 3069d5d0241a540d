"""The experiment of the drills, shrunk, and its undisturbed runs."""

import dataclasses
import functools
import pathlib
from typing import Any

import ml_collections

from drills.job import Job
from semmim_jax.tasks.registry import find_task

# Small enough for minutes, large enough for saves to take time.
SHRUNK = {
    'data.eval': '',
    'data.workers': 0,
    'train.steps': 60,
    'train.batch_size': 16,
    'train.log_every': 1,
    'train.save_every': 3,
    'train.images_every': 0,
}
SHORTER = {'train.steps': 30}  # of several processes: their steps take seconds on two cores


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all drills share.

    Attributes:
      name: of the config, as in --config.
      overrides: the user's.
      named: the config of that name with these overrides.
      folder: new; every run gets a subfolder.
      seed: of random times and places.
      kills: of each kill9 drill.
    """

    name: str
    overrides: dict[str, Any]
    named: ml_collections.ConfigDict
    folder: pathlib.Path
    seed: int
    kills: int

    @functools.cached_property
    def config(self) -> ml_collections.ConfigDict:
        """The experiment as the runs have it, for drills in this process."""
        config = self.named.copy_and_resolve_references()
        config.update_from_flattened_dict({**SHRUNK, **self.overrides})
        return config

    @property
    def make_task(self) -> Any:
        """See `run.experiment.MakeTask`."""
        return find_task(self.config)

    def job(self, name: str, *, processes: int = 1, devices: int = 1, **overrides: Any) -> Job:
        """A run in the subfolder `name`.

        Args:
          name: of the run.
          processes, devices: see `Job`.
          overrides: field -> value over those of the setting, '__' in place of '.'.
        """
        own = {field.replace('__', '.'): value for field, value in overrides.items()}
        shrunk = SHRUNK | SHORTER if processes > 1 else SHRUNK
        return Job(
            config=self.name,
            workdir=self.folder / name,
            overrides={**shrunk, **self.overrides, **own},
            processes=processes,
            devices=devices,
        )

    def whole(self, like: Job) -> Job:
        """The uninterrupted run on as many processes and devices, made when first asked for."""
        size = dict(processes=like.processes, devices=like.devices)
        job = self.job('whole-{processes}x{devices}'.format(**size), **size)
        if not job.workdir.exists():
            job.run()
        return job
