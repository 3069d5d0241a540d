"""How the commands read their flags."""

import sys

from absl import app, flags

# What config_flags and absl raise for a bad argument, besides flags.Error.
_MISTAKES = (AttributeError, KeyError, TypeError, ValueError, OSError)
_TOO_NESTED = (RecursionError, MemoryError)  # of Python's parser: thousands of dots or brackets


def parse(argv: list[str]) -> list[str]:
    """For `app.run(main, flags_parser=parse)`: a mistaken flag or config key ends in one line."""
    if {'--help', '--helpshort', '--helpfull'} & set(argv):
        return app.parse_flags_with_usage(argv)
    try:
        return flags.FLAGS(argv)
    except _TOO_NESTED:
        sys.exit('error: a key or value of --config is nested too deeply to be read')
    except (flags.Error, *_MISTAKES) as error:
        said = ' '.join(str(part) for part in error.args)
        # An error inside a config file arrives as a whole traceback, in which the last line counts.
        lines = said.strip().splitlines()
        sys.exit(f'error: {lines[-1] if "Traceback" in said else " ".join(lines)}')
