"""Files beside the code agree with it: versions, citation, hooks, workflow, reference."""

import configparser
import pathlib
import re
import tomllib

import yaml

ROOT = pathlib.Path(__file__).parent.parent


def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    return config


def test_the_citation_names_the_version_and_the_licence():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    metadata = setup()['metadata']
    assert citation['version'] == metadata['version']
    assert citation['license'] == metadata['license']
    assert 'arXiv:2403.00249' in str(citation['references'])


def test_the_changelog_has_the_version():
    version = setup()['metadata']['version']
    assert f'## {version}' in (ROOT / 'CHANGELOG.md').read_text().splitlines()


def test_hooks_use_the_pinned_ruff():
    pinned = re.search(r'^ruff==.+$', (ROOT / 'constraints.txt').read_text(), re.MULTILINE)[0]
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos'][0]['hooks']
    ruff = [hook for hook in hooks if hook['id'].startswith('ruff-')]
    assert [hook['additional_dependencies'] for hook in ruff] == [[pinned]] * 2


def test_make_lint_and_a_hook_check_types():
    lint = re.search(r'^lint:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1]
    assert '$(BIN)/mypy' in lint.split()
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos'][0]['hooks']
    assert [hook['entry'] for hook in hooks if hook['id'] == 'mypy'] == ['.venv/bin/mypy']
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['mypy']['overrides']
    strict = {
        name for part in settings if part.get('disallow_untyped_defs') for name in part['module']
    }
    folders = ('conversion', 'data', 'importers', 'losses', 'models', 'ops')
    assert strict == {f'semmim_jax.{folder}.*' for folder in folders}


def test_the_workflow_runs_targets_that_exist_on_both_pythons():
    job = yaml.safe_load((ROOT / '.github/workflows/test.yml').read_text())['jobs']['test']
    assert job['strategy']['matrix']['python'] == ['3.11', '3.13']
    targets = [step['run'].removeprefix('make ') for step in job['steps'] if 'run' in step]
    rules = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert {'lint', 'test'} <= set(targets) <= set(rules)
    assert 'It was not run here' in (ROOT / 'CONTRIBUTING.md').read_text()


def test_every_folder_of_the_package_is_in_the_reference():
    folders = {path.parent.name for path in (ROOT / 'semmim_jax').glob('*/__init__.py')}
    pages = {path.stem for path in (ROOT / 'docs' / 'reference').glob('*.md')} - {'index'}
    assert pages == folders - {'cli'}  # how commands read their flags: --help says it
