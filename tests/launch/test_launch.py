"""The launchers: linters, schemas, and local.sh's care for its processes."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import kubernetes_validate
import pytest
import yaml
from ml_collections import config_flags

from configs.pretrain import get_config

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))


def run(*command, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def tool(name: str) -> str:
    """A linter that pip has put beside the interpreter."""
    return shutil.which(name, path=f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    assert os.access(script, os.X_OK)
    result = run(tool('shellcheck'), script)
    assert result.returncode == 0, result.stdout


def test_hadolint_finds_nothing():
    result = run(tool('hadolint'), LAUNCH / 'Dockerfile')
    assert result.returncode == 0, result.stdout


def test_images_are_pinned_not_root_and_ask_for_extras_that_exist():
    text = (LAUNCH / 'Dockerfile').read_text()
    assert re.findall(r'^FROM \S+ AS (\w+)', text, re.M) == ['base', 'cpu', 'tpu', 'cuda']
    assert re.search(r'^FROM [\w./-]+:\d+\.\d+\.\d+\S* AS base', text, re.M)
    assert re.findall(r'^USER (\S+)', text, re.M) == ['1000']
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    for line in re.findall(r'pip install .*', text):
        assert '--constraint=constraints.txt' in line
        extras = re.findall(r'\.\[(\w+)\]', line)
        assert set(extras) <= set(setup['options.extras_require'])


@pytest.fixture(scope='module')
def jobset():
    return yaml.safe_load((LAUNCH / 'gke_jobset.yaml').read_text())


def test_the_jobset_holds_a_valid_job(jobset):
    """Kubernetes' own schema for the job; JobSet's fields (v1alpha2) by hand."""
    assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    assert set(jobset) == {'apiVersion', 'kind', 'metadata', 'spec'}
    assert set(jobset['spec']) <= {'failurePolicy', 'successPolicy', 'network', 'replicatedJobs'}
    (job,) = jobset['spec']['replicatedJobs']
    assert set(job) == {'name', 'replicas', 'template'}
    whole = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': job['name']}}
    kubernetes_validate.validate(whole | job['template'], '1.30', strict=True)


def test_the_jobset_asks_for_the_hosts_of_its_slice(jobset):
    job = jobset['spec']['replicatedJobs'][0]['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']
    x, y = pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
    chips = container['resources']['limits']['google.com/tpu']
    assert job['completions'] == job['parallelism'] == int(x) * int(y) // chips
    volumes = {volume['name'] for volume in pod['volumes']}
    assert {mount['name'] for mount in container['volumeMounts']} == volumes


def test_the_jobsets_overrides_are_keys_of_the_config(jobset):
    pod = jobset['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
    arguments = dict(argument.split('=', 1) for argument in pod['containers'][0]['args'])
    assert (ROOT / arguments.pop('--config')).is_file() and arguments.pop('--workdir')
    for name in arguments:
        path = name.removeprefix('--config.')
        assert config_flags.config_path.get_type(path, get_config()) is str


@pytest.mark.parametrize('script', ['local.sh', 'tpu_vm.sh'])
def test_a_script_without_arguments_says_how_to_use_it(script):
    result = run(LAUNCH / script)
    assert result.returncode == 2
    assert result.stderr.startswith(f'usage: launch/{script}')


def stand_in(folder: pathlib.Path, *, body: str) -> str:
    """An interpreter that runs `body` with $id instead of the program."""
    path = folder / 'python'
    path.write_text(
        f'#!/usr/bin/env bash\n[[ $1 == -c ]] && exec {sys.executable} "$@"\n'
        f'id=$(sed "s/.*--process_id=\\([0-9]*\\).*/\\1/" <<< "$*")\n{body}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_local_starts_every_process_with_its_own_index(tmp_path):
    python = stand_in(tmp_path, body='echo "$@"')
    result = run(LAUNCH / 'local.sh', '3', '--workdir=RUN', PYTHON=python, TIMEOUT='7')
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    assert len({re.search(r'--coordinator=(\S+)', line)[1] for line in lines}) == 1
    for i, line in enumerate(lines):
        assert line.startswith(f'[{i}] -m semmim_jax.main ')
        for flag in (
            f'--process_id={i}',
            '--processes=3',
            '--distributed_timeout=7',
            '--workdir=RUN',
        ):
            assert flag in line.split()


def test_local_ends_all_when_one_process_dies(tmp_path):
    python = stand_in(tmp_path, body='[[ $id == 1 ]] && kill -9 $$; exec sleep 60')
    start = time.monotonic()
    result = run(LAUNCH / 'local.sh', '3', PYTHON=python, TIMEOUT='1')
    assert time.monotonic() - start < 30
    assert result.returncode == 128 + 9
    assert 'process 1 ended with status 137' in result.stderr
    assert 'the same command resumes' in result.stderr
