"""Who may import whom; a breach fails here with the file's name."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = 'semmim_jax'

# The house, from the ground up: a folder imports only folders of lower floors, and itself.
FLOORS = (
    ('cli', 'ops'),
    ('data',),
    ('data/readers',),
    ('data/emoji', 'losses', 'models', 'viz'),
    ('training', 'importers'),
    ('tasks',),
    ('planning', 'conversion', 'inference'),
    ('evaluators',),
    ('run', 'ablation'),
    ('app',),
    ('',),  # the commands
)
FLOOR = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
ONLY = {
    'losses': {'jax', 'chex'},
    'ops': {'jax', 'chex', 'numpy'},
    'models': {'jax', 'flax', 'numpy'},
}
NEVER = {
    'data': {'jax', 'flax', 'optax', 'orbax'},
    'importers': {'jax', 'flax', 'optax', 'orbax', 'matplotlib'},
    'viz': {'jax', 'flax', 'optax', 'orbax'},
    'tasks': {'optax', 'orbax', 'grain'},
}
EVERYWHERE_NEVER = {
    *('tensorflow', 'clu'),
    # What runs code that a file holds.
    *('pickle', 'cloudpickle', 'dill', 'joblib', 'shelve', 'marshal', 'yaml', 'runpy', 'imp'),
}
# Calls by their last name, and arguments, that run code from files or strings.
NEVER_CALLED = {'eval', 'exec', '__import__', 'import_module', 'exec_module', 'system', 'popen'}
NEVER_PASSED = {
    'allow_pickle': True,
    'weights_only': False,
    'trust_remote_code': True,
    'shell': True,
}
# Files of conversion/ that are copied out and run without this project.
PLAIN_TORCH = (
    'torch_model',
    'torch_scl',
    'torch_towers',
    'torch_inputs',
    'torch_words',
    'torch_bytes',
)


def imports(path: pathlib.Path, *, functions: bool = True) -> set[str]:
    """Dotted names of every module that a file imports, inside functions too if `functions`."""
    names, nodes = set(), [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if functions or not isinstance(node, ast.FunctionDef):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def third_party(names: set[str]) -> set[str]:
    import sys

    tops = {name.split('.')[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {PACKAGE}


def folder_of(name: str) -> str:
    """The folder of FLOORS that a module of the package is in: 'semmim_jax.ops.beam' -> 'ops'."""
    parts = name.split('.')[1:]
    places = ('/'.join(parts[:end]) for end in range(len(parts), -1, -1))
    return next(place for place in places if place in FLOOR)


def test_every_folder_has_a_floor():
    folders = {path.parent for path in (ROOT / PACKAGE).rglob('*.py')}
    names = {path.relative_to(ROOT / PACKAGE).as_posix() for path in folders}
    assert {name for name in names if not name.startswith('tasks/')} - {'.'} == FLOOR.keys() - {''}


def test_a_folder_imports_only_lower_floors():
    for path in (ROOT / PACKAGE).rglob('*.py'):
        here = folder_of('.'.join(path.relative_to(ROOT).with_suffix('').parts))
        if path.name == '__init__.py' and path.parent == ROOT / PACKAGE:
            continue  # opens the door to `load`
        for name in imports(path):
            if name.startswith(PACKAGE + '.'):
                there = folder_of(name)
                assert here == there or FLOOR[there] < FLOOR[here], (
                    f'{path.relative_to(ROOT)} imports {name}'
                )


@pytest.mark.parametrize('folder', sorted(FLOOR))
def test_a_folder_uses_only_the_packages_that_it_may(folder):
    for path in (ROOT / PACKAGE / folder).rglob('*.py'):
        outside, top = third_party(imports(path)), folder.split('/')[0]
        if top in ONLY:
            assert outside <= ONLY[top], f'{path.relative_to(ROOT)} imports {outside}'
        forbidden = outside & NEVER.get(top, set())
        assert not forbidden, f'{path.relative_to(ROOT)} imports {forbidden}'


def test_the_demo_corpus_is_known_to_itself_alone():
    for folder in (PACKAGE, 'drills'):
        for path in (ROOT / folder).rglob('*.py'):
            if 'emoji' not in path.relative_to(ROOT).parts:
                assert 'emoji' not in path.read_text(), path


def test_flax_linen_lives_in_models_and_tasks_apply_it():
    for path in (ROOT / PACKAGE).rglob('*.py'):
        folder = path.relative_to(ROOT / PACKAGE).parts[0]
        if folder in ('models', 'tasks'):
            continue
        linen = {name for name in imports(path) if name.startswith('flax.linen')}
        assert not linen, f'{path.relative_to(ROOT)} imports {linen}'


def test_tasks_define_no_modules():
    for path in (ROOT / PACKAGE / 'tasks').rglob('*.py'):
        assert 'nn.Module' not in path.read_text(), path


def test_configs_import_ml_collections_and_configs_only():
    for path in (ROOT / 'configs').glob('*.py'):
        names = imports(path)
        assert third_party(names) <= {'ml_collections', 'configs'}, path
        assert not any(name.startswith(PACKAGE) for name in names), path


def test_nothing_imports_a_command():
    commands = {path.stem for path in (ROOT / PACKAGE).glob('*.py')} - {'__init__'}
    for path in (ROOT / PACKAGE).rglob('*.py'):
        for name in imports(path):
            parts = name.split('.')
            assert not (parts[0] == PACKAGE and parts[1:2] and parts[1] in commands), (
                f'{path.relative_to(ROOT)} imports the command {name}'
            )


def unsafe(source: str) -> list[str]:
    """What a source text calls that may run code from a file or a string."""
    calls = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        given = {k.arg: getattr(k.value, 'value', None) for k in node.keywords}
        if name in NEVER_CALLED:
            calls.append(name)
        calls += [key for key in given if key in NEVER_PASSED and given[key] is NEVER_PASSED[key]]
        if ast.unparse(node.func) == 'torch.load' and given.get('weights_only') is not True:
            calls.append('torch.load')
    return calls


def test_no_file_that_is_read_can_run_code():
    for path in [*(ROOT / PACKAGE).rglob('*.py'), *(ROOT / 'configs').rglob('*.py')]:
        tops = {name.split('.')[0] for name in imports(path)}
        assert not tops & EVERYWHERE_NEVER, f'{path.relative_to(ROOT)}: {tops & EVERYWHERE_NEVER}'
        calls = unsafe(path.read_text())
        assert not calls, f'{path.relative_to(ROOT)} calls {calls}'


@pytest.mark.parametrize(
    'line',
    [
        'eval(x)',
        'np.load(x, allow_pickle=True)',
        'torch.load(x)',
        'torch.load(x, weights_only=False)',
        'importlib.import_module(x)',
        'subprocess.run(x, shell=True)',
        'AutoTokenizer.from_pretrained(x, trust_remote_code=True)',
    ],
)
def test_what_may_run_code_is_seen(line):
    assert unsafe(line)


def test_torch_is_imported_in_functions_of_conversion_only():
    for path in (ROOT / PACKAGE).rglob('*.py'):
        inside = path.parent.name == 'conversion'
        if inside and path.stem in PLAIN_TORCH:
            assert third_party(imports(path)) <= {'torch', 'PIL'}
            ours = {name.split('.')[2] for name in imports(path) if name.startswith(PACKAGE)}
            assert ours <= set(PLAIN_TORCH), f'{path.relative_to(ROOT)} imports {ours}'
            continue
        packages = third_party(imports(path, functions=not inside))
        assert 'torch' not in packages, f'{path.relative_to(ROOT)} imports torch'


def test_scikit_learn_is_imported_in_functions_only():
    """It takes a second, and a training needs none of it."""
    for path in (ROOT / PACKAGE).rglob('*.py'):
        packages = third_party(imports(path, functions=False))
        assert 'sklearn' not in packages, f'{path.relative_to(ROOT)} imports sklearn'


def test_files_are_short():
    folders = (PACKAGE, 'configs', 'benchmarks', 'drills', 'fuzz', 'tests')
    for path in [path for folder in folders for path in (ROOT / folder).rglob('*.py')]:
        lines = len(path.read_text().splitlines())
        assert lines <= 500, f'{path.relative_to(ROOT)} has {lines} lines'
