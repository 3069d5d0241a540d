"""Which file --config means: one of the working folder, or one that the package ships."""

import pathlib
from typing import NamedTuple

# Fields of configs that have another name now: the command line is answered with it, and a config
# of an earlier version (`training.config_versions`) gets it.
RENAMED = {
    'data.image_root': 'data.captions.image_root',
    'train.microbatches': 'train.accumulate',
    'init.weights': 'init_from',
}
_PACKAGE = pathlib.Path(__file__).parent.parent


class ConfigFile(NamedTuple):
    """Where a config is.

    Attributes:
      path: of the file; of one that exists nowhere, as it was given.
      is_shipped: whether it comes with the package.
      imports: folders that hold what the file imports as `configs.NAME`, the first before the next.
    """

    path: pathlib.Path
    is_shipped: bool
    imports: list[str]


def shipped_folder() -> pathlib.Path:
    """The shipped configs: inside an installed package, beside it in a checkout."""
    installed = _PACKAGE / 'configs'
    return installed if installed.is_dir() else _PACKAGE.parent / 'configs'


def find_config(name: str) -> ConfigFile:
    """The file of a name; configs/NAME.py may be a shipped one if the working folder has no such.

    A file of the user's imports what the working folder's configs/ has before what is shipped; a
    shipped one imports shipped ones alone.
    """
    path, shipped = pathlib.Path(name), shipped_folder()
    if not path.exists() and path.parent == pathlib.Path('configs'):
        if (shipped / path.name).is_file():
            return ConfigFile(shipped / path.name, True, [str(shipped)])
    return ConfigFile(path, False, [str(pathlib.Path('configs').absolute()), str(shipped)])


def known_configs(name: str) -> set[str]:
    """Names that may have been meant: files beside it, and those of configs/, shipped or not."""
    beside = pathlib.Path(name).parent
    here = [*beside.glob('*.py'), *pathlib.Path('configs').glob('*.py')]
    return {str(x) for x in here} | {f'configs/{x.name}' for x in shipped_folder().glob('*.py')}
