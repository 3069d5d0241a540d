"""How the commands read their flags: before slow imports, with mistakes in one line."""

import difflib
import itertools
import re
import sys
import textwrap
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from semmim_jax.cli.config_files import RENAMED, find_config, known_configs

flags.disclaim_key_flags()  # what `define_config` defines is the command's own flag

_HELP = ('-h', '--h', '-help', '--help', '-?')
_TOO_NESTED = (RecursionError, MemoryError)  # of Python's parser: thousands of dots or brackets
_NO_WORDS = {}


def define_config(default: str | None, about: str) -> flags.FlagHolder:
    """The flag --config, with the fields that the command line sets.

    config_flags reads a default, and the fields, where the flag is defined: so a mistake in them
    is said here, as `parse` says others. A file configs/NAME.py that the working folder lacks is
    the one that the package ships.
    """
    try:
        if default and not any(_values('config', sys.argv[1:])) and not set(_HELP) & set(sys.argv):
            default = _located(default)
        return config_flags.DEFINE_config_file('config', default, about)
    except Exception as error:  # see parse
        sys.exit(f'error: {_line(error, sys.argv[1:])}')


def parse(argv: list[str], *, words: Mapping[str, Sequence[str]] = _NO_WORDS) -> list[str]:
    """For `app.run(main, flags_parser=parse)`: a mistaken flag, field or word ends in one line.

    Args:
      argv: of the command.
      words: the words that the command takes beside its flags: name -> what it may be, () for
        anything. A name that ends in '...' stands for one or more.

    Returns:
      The command's name and its words.

    Raises:
      SystemExit: after a mistake, with its line; after -h or --help, which print the command's
        docstring and flags, with 0.
    """
    arguments = list(itertools.takewhile(lambda word: word != '--', argv[1:]))
    if set(_HELP) & set(arguments):
        print(_help())
        sys.exit(0)
    try:
        if 'config' in flags.FLAGS:
            arguments = _with_located_configs(arguments)
        parsed = flags.FLAGS([argv[0], *arguments, *argv[1 + len(arguments) :]])
        _check_words(parsed[1:], words)
        return parsed
    except _TOO_NESTED:
        sys.exit('error: a key or value of --config is nested too deeply to be read')
    except Exception as error:  # config_flags, absl and the config file raise what they like
        sys.exit(f'error: {_line(error, arguments)}')


def read_config(arguments: Sequence[str]) -> Any:
    """The config of a command line: --config=FILE:VARIANT, and --config.FIELD=VALUE for others.

    Nothing is printed, and no flag of the running command changes.

    Raises:
      ValueError: a line that names the flag or field which is wrong.
    """
    values = flags.FlagValues()
    try:
        words = [_located(w, say=False) for w in _values('config', arguments)]
        words = [f'--config={words[0]}', *(w for w in arguments if not w.startswith('--config='))]
        command = ['config', *words]
        config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=command)
        values(command)
        return values.config
    except _TOO_NESTED:
        raise ValueError('a key or value of --config is nested too deeply to be read') from None
    except Exception as error:  # see parse
        raise ValueError(_line(error, arguments)) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest of the known names, '' if none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean {matches[0]}?' if matches else ''


def _help() -> str:
    """The docstring of the command, and its flags with what they may be."""
    lines = [(sys.modules['__main__'].__doc__ or '').strip(), '', 'Flags:']
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda x: x.name):
        default = '' if flag.default in (None, '', []) else f' (default {flag.default_as_str})'
        about = f'--{flag.name}: {flag.help}{default}'
        lines.append(textwrap.fill(about, 100, initial_indent='  ', subsequent_indent=' ' * 6))
    if 'config' in flags.FLAGS:
        lines.append('  --config.FIELD=VALUE: another value of a field of the config')
    return '\n'.join(lines)


def _with_located_configs(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with the files of --config where they are, see `_located`."""
    located, is_value = [], False
    for word in arguments:
        key, is_set, value = word.partition('=')
        names_config = key in ('--config', '-config')
        if is_value:
            word = _located(word)
        elif names_config and is_set:
            word = f'{key}={_located(value)}'
        is_value = not is_value and names_config and not is_set
        located.append(word)
    return located


def _located(value: str, *, say: bool = True) -> str:
    """FILE[:VARIANT] with the file that it means; prints which one if it is a shipped one.

    Config files import each other as `configs.NAME`: that package is made to hold the files of the
    working folder's configs/ and the shipped ones, or the shipped ones alone for a shipped file.

    Raises ValueError if there is no such file, which config_flags would say only later.
    """
    name, colon, variant = value.partition(':')
    config = find_config(name)
    if not config.path.is_file():
        raise ValueError(f'--config={value}: no such file{nearest(name, known_configs(name))}')
    if 'configs' not in sys.modules:
        sys.modules['configs'] = package = types.ModuleType('configs')
        package.__path__ = config.imports
    if config.is_shipped and say:
        print(f'config: {config.path}, shipped with semmim_jax', flush=True)
    return f'{config.path}{colon}{variant}'


def _values(name: str, arguments: Sequence[str]) -> Iterator[str]:
    """Values of a flag, written --name=VALUE or --name VALUE."""
    for word, following in zip(arguments, [*arguments[1:], '']):
        key, is_set, value = word.partition('=')
        if key in (f'--{name}', f'-{name}'):
            yield value if is_set else following


def _check_words(arguments: Sequence[str], words: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError unless the words beside the flags are those that the command takes."""
    names, usage = list(words), 'this command takes flags alone'
    if words:
        usage = f'usage: {" ".join(words)} --FLAG=VALUE ...'
    many = bool(names) and names[-1].endswith('...')
    for word, name in zip(arguments, [*names, *names[-1:] * many * len(arguments)]):
        if words[name] and word not in words[name]:
            one_of = ', '.join(words[name])
            raise ValueError(f'{word!r} is none of {one_of}{nearest(word, words[name])}')
    if len(arguments) < len(names):
        lacking = names[len(arguments)]
        one_of = f', one of {", ".join(words[lacking])}' if words[lacking] else ''
        raise ValueError(f'{lacking.removesuffix("...")} is missing{one_of}; {usage}')
    if len(arguments) > len(names) and not many:
        word = arguments[len(names)]
        raise ValueError(f'{word!r} is not understood: {usage}{_meant(word)}')


def _meant(word: str) -> str:
    """'; did you mean --FLAG?' for a flag without its dashes, or the value of one."""
    name = word.partition('=')[0]
    if name in flags.FLAGS or name.startswith('config.'):
        return f'; did you mean --{word}?'
    for flag in map(flags.FLAGS.__getitem__, flags.FLAGS):
        if word in (getattr(flag.parser, 'enum_values', None) or ()):
            return f'; did you mean --{flag.name}={word}?'
    return ''


def _line(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong, in one line that names the flag or field."""
    message = ' '.join(str(part) for part in error.args).strip()
    if isinstance(error, KeyError | AttributeError):
        if wrong := re.match(r'[\'"\\]*(\w+)[\'"\\]*(?:$|\\n|\n)', message):
            return _no_field(wrong[1], message, arguments)
    place = traceback.extract_tb(error.__traceback__)[-1]
    files = [value.partition(':')[0] for value in _values('config', arguments)]
    if isinstance(error, SyntaxError):
        return f'{error.filename}, line {error.lineno}: {error.msg}'
    if place.filename in files:
        return f'{place.filename}, line {place.lineno}: {type(error).__name__}: {message}'
    # An error inside a config file may arrive as a whole traceback, in which the last line counts.
    message = re.sub(r'^\w+: ', '', message.splitlines()[-1]) if 'Traceback' in message else message
    if "no attribute 'get_config'" in message:
        return f'{files[-1]} has no get_config, which configs/*.py show'
    if message.startswith("Unknown command line flag 'config.") and not files:
        return '--config=FILE must be given, for its fields to be set'
    missing = re.match(r'flag --(\w+)=None: Flag --\1 must have a value', message)
    message = f'--{missing[1]}=VALUE must be given; -h lists the flags' if missing else message
    return ' '.join(message.split()) or type(error).__name__


def _no_field(wrong: str, message: str, arguments: Sequence[str]) -> str:
    """A line about a field that the config does not have, as it was typed."""
    names = [word.partition('=')[0] for word in arguments if word.lstrip('-').startswith('config.')]
    for name in names:
        old = name.lstrip('-').removeprefix('config.')
        if old in RENAMED and wrong == old.split('.')[-1]:
            return f'{name}: this field is {RENAMED[old]} now; write --config.{RENAMED[old]}=VALUE'
    name = next((name for name in names if wrong in name.split('.')), f'--config...{wrong}')
    near = re.search(r'Did you mean "(\w+)"', message)
    more = f'; did you mean {near[1]}?' if near else ''
    return f'{name}: the config has no field {wrong!r}{more}'
