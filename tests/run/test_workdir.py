"""A start that is refused leaves the workdir as it was; a run is opened from its checkpoint."""

import hashlib
import json
import pathlib

import pytest

from semmim_jax.data.examples import ClassifyExamples
from semmim_jax.data.run_files import labels_of_run, tokenizer_of_run
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.run.experiment import open_experiment
from semmim_jax.training.checkpoint import CheckpointError, load_params
from semmim_jax.training.verify import verify_workdir
from tests.run.own_data import write_own_data
from tests.run.small_task import SmallTask, small_config


class Choosing(SmallTask):
    """As a classifier: it has a list of labels."""

    needs_labels = True
    examples = ClassifyExamples

    def check_labels(self, labels):
        assert len(labels) == 2


def write_list(folder: pathlib.Path, name: str, labels: tuple[str, str], word: str) -> str:
    """A list for classification over the pictures of `write_own_data`."""
    lines = [
        {'image': f'{i}.{"jpg" if i % 2 else "png"}', 'prompt': f'a {word}', 'label': labels[i % 2]}
        for i in range(24)
    ]
    (folder / name).write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return f'jsonl:{folder / name}'


@pytest.fixture
def started(tmp_path):
    """(config, workdir, folder of the lists) of a run that saved its first state."""
    captions = write_own_data(tmp_path)
    config = small_config(captions)
    config.data.eval = ''
    with config.unlocked():
        config.data.min_answer_count = 1
    config.task.name = 'classify'
    config.data.train = write_list(tmp_path, 'first.jsonl', ('cat', 'dog'), 'pet')
    workdir = tmp_path / 'run'
    run = open_experiment(config, str(workdir), Choosing)
    assert not workdir.exists()
    run.save(run.restore_or_create())
    run.checkpoints.close()
    return config, workdir, tmp_path


def contents(folder: pathlib.Path) -> dict[str, str]:
    """Digest of each file."""
    paths = [path for path in folder.rglob('*') if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def start(config, workdir):
    open_experiment(config, str(workdir), Choosing).restore_or_create()


def other_vocabulary(config, folder) -> str:
    tokens = make_tokenizer('', texts=['a pet'], size=config.model.text.vocab_size).tokens()
    at = tokens.index('pet')
    tokens[at] = 'zebra'
    (folder / 'other.txt').write_text('\n'.join(tokens) + '\n')
    return str(folder / 'other.txt')


@pytest.mark.parametrize(
    'changed, said',
    [
        ('labels', "record 0 of the training source has another 'label' .now 'bird'."),
        ('vocabulary', "token 6 was 'pet' and is 'zebra'"),
        ('shape', 'does not fit the config: .*params/image/kernel'),
        ('batch', 'train.batch_size was 8 and is 4'),
        ('seed', 'seed was 0 and is 3'),
        ('end_token', 'data.end_token was True and is False'),
        ('records', 'had 24 records and has 23'),
    ],
)
def test_a_refused_start_changes_nothing_and_says_what_differs(started, changed, said):
    config, workdir, folder = started
    before = contents(workdir)
    other, make_task = config.copy_and_resolve_references(), Choosing
    if changed == 'labels':
        other.data.train = write_list(folder, 'second.jsonl', ('bird', 'fish'), 'pet')
    elif changed == 'vocabulary':
        other.data.vocab = other_vocabulary(config, folder)
    elif changed == 'batch':
        other.train.batch_size = 4
    elif changed == 'seed':
        other.seed = 3
    elif changed == 'end_token':
        other.data.end_token = False
    elif changed == 'records':
        lines = (folder / 'first.jsonl').read_text().splitlines()[:-1]
        (folder / 'fewer.jsonl').write_text('\n'.join(lines))
        other.data.train = f'jsonl:{folder / "fewer.jsonl"}'
    elif changed == 'shape':

        class Wider(Choosing):
            def init(self, key):
                params = super().init(key)
                return {**params, 'image': {'kernel': params['image']['kernel'].repeat(2, axis=1)}}

        make_task = Wider
    with pytest.raises(CheckpointError, match=said):
        open_experiment(other, str(workdir), make_task).restore_or_create()
    assert contents(workdir) == before
    _, saved = load_params(workdir)
    assert labels_of_run(saved, workdir=workdir) == ('cat', 'dog')
    assert 'pet' in tokenizer_of_run(saved, workdir=workdir).tokens()
    start(config, workdir)  # the original command goes on


def test_what_is_used_is_the_checkpoints_and_verify_sees_another(started, capsys):
    config, workdir, _ = started
    assert verify_workdir(workdir)
    right = (workdir / 'labels.json').read_text()
    (workdir / 'labels.json').write_text('["bird", "fish"]\n')
    (workdir / 'vocab.txt').unlink()
    _, saved = load_params(workdir)
    assert labels_of_run(saved, workdir=workdir) == ('cat', 'dog')
    assert not verify_workdir(workdir)
    said = [line for line in capsys.readouterr().out.splitlines() if 'FOREIGN' in line]
    assert [line.split(': ')[0].split('/')[-1] for line in said] == ['vocab.txt', 'labels.json']
    start(config, workdir)
    assert (workdir / 'labels.json').read_text() == right
    assert verify_workdir(workdir)


def test_a_config_of_an_earlier_version_is_the_runs_own(started):
    path = started[1] / 'config.json'
    config = json.loads(path.read_text())
    del config['log']  # a field that came later, with the value of before
    path.write_text(json.dumps(config))
    assert verify_workdir(started[1])
    config['seed'] += 1
    path.write_text(json.dumps(config))
    assert not verify_workdir(started[1])


def test_a_checkpoint_whose_labels_were_changed_on_disk_is_damaged(started):
    config, workdir, _ = started
    path = next((workdir / 'checkpoints/0/files').rglob('*'))
    path.write_bytes(path.read_bytes().replace(b'cat', b'rat'))
    assert not verify_workdir(workdir)
    with pytest.raises(CheckpointError, match='damaged'):
        load_params(workdir)
