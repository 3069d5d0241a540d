"""requirements.lock holds what constraints.txt pins, each file by its hash."""

import configparser
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def name_of(requirement: str) -> str:
    return re.match(r'[\w.-]+', requirement).group().lower().replace('_', '-')


def test_every_version_is_that_of_the_constraints_and_every_file_has_a_hash():
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    pinned = {name_of(x): x.split('==')[1] for x in lines if '==' in x}
    locked = (ROOT / 'requirements.lock').read_text().replace('\\\n', '').splitlines()
    assert len(locked) > 50
    for line in locked:
        version = re.match(r'\S+==(\S+)', line).group(1)
        here = 'sys_platform ==' not in line  # others' systems are not pinned
        assert pinned.get(name_of(line), None if here else version) == version, line
        assert re.search(r'--hash=sha256:[0-9a-f]{64}', line), line
        assert '://' not in line


def test_what_the_package_and_the_demo_ask_for_is_locked():
    """After a change of setup.cfg or constraints.txt: make lock."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    asked = config['options']['install_requires'] + config['options.extras_require']['demo']
    locked = (ROOT / 'requirements.lock').read_text().splitlines()
    names = {name_of(line) for line in locked if '==' in line}
    assert {name_of(line) for line in asked.split('\n') if line} <= names
