"""Who may import whom; a breach fails here with the file's name."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = 'semmim_jax'

# Folder -> parts of the project that it may import, and third-party packages that it must not.
FOLDERS = {
    'losses': {'losses'},
    'ops': {'ops'},
    'models': {'models', 'ops'},
    'data': {'data'},
    'tasks': {'tasks', 'models', 'losses', 'ops'},
    'training': {'training', 'conversion', 'data', 'evaluators', 'ops'},
    'evaluators': {'evaluators', 'data', 'viz', 'training.predictor', 'training.sharding'},
    'viz': {'viz', 'data'},
    'conversion': {'conversion', 'data', 'ops', 'training.checkpoint'},
}
ONLY = {
    'losses': {'jax', 'chex'},
    'ops': {'jax', 'chex', 'numpy'},
    'models': {'jax', 'flax', 'numpy'},
}
NEVER = {
    'data': {'jax', 'flax', 'optax', 'orbax'},
    'viz': {'jax', 'flax', 'optax', 'orbax'},
    'training': set(),
    'tasks': {'optax', 'orbax', 'grain'},
}
EVERYWHERE_NEVER = {'tensorflow', 'clu', 'pickle', 'dill', 'shelve', 'marshal'}
PLAIN_TORCH = 'torch_model.py'  # of conversion/: it is copied out and runs without this project


def imports(path: pathlib.Path, *, functions: bool = True) -> set[str]:
    """Dotted names of every module that a file imports, inside functions too if `functions`."""
    found, nodes = set(), [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if functions or not isinstance(node, ast.FunctionDef):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def third_party(names: set[str]) -> set[str]:
    import sys

    tops = {name.split('.')[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {PACKAGE}


@pytest.mark.parametrize('folder', FOLDERS)
def test_a_folder_imports_only_what_it_may(folder):
    for path in (ROOT / PACKAGE / folder).rglob('*.py'):
        names = imports(path)
        for name in names:
            if name.startswith(PACKAGE + '.'):
                inner = name.removeprefix(PACKAGE + '.')
                allowed = any(
                    inner == part or inner.startswith(part + '.') for part in FOLDERS[folder]
                )
                assert allowed, f'{path.relative_to(ROOT)} imports {name}'
        outside = third_party(names)
        if folder in ONLY:
            assert outside <= ONLY[folder], f'{path.relative_to(ROOT)} imports {outside}'
        forbidden = outside & NEVER.get(folder, set())
        assert not forbidden, f'{path.relative_to(ROOT)} imports {forbidden}'


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


def test_configs_import_ml_collections_only():
    for path in (ROOT / 'configs').glob('*.py'):
        assert third_party(imports(path)) <= {'ml_collections'}, path


def test_nothing_imports_a_command():
    commands = {path.stem for path in (ROOT / PACKAGE).glob('*.py')} - {'__init__'}
    for path in (ROOT / PACKAGE).rglob('*.py'):
        for name in imports(path):
            parts = name.split('.')
            assert not (parts[0] == PACKAGE and parts[1:2] and parts[1] in commands), (
                f'{path.relative_to(ROOT)} imports the command {name}'
            )


def test_no_unsafe_module_anywhere():
    for path in (ROOT / PACKAGE).rglob('*.py'):
        tops = {name.split('.')[0] for name in imports(path)}
        assert not tops & EVERYWHERE_NEVER, f'{path.relative_to(ROOT)}: {tops & EVERYWHERE_NEVER}'
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert not {'eval', 'exec'} & set(calls), f'{path.relative_to(ROOT)} calls eval or exec'


def test_torch_is_imported_in_functions_of_conversion_only():
    for path in (ROOT / PACKAGE).rglob('*.py'):
        inside = path.parent.name == 'conversion'
        if inside and path.name == PLAIN_TORCH:
            assert third_party(imports(path)) <= {'torch', 'safetensors'}
            continue
        found = third_party(imports(path, functions=not inside))
        assert 'torch' not in found, f'{path.relative_to(ROOT)} imports torch'


def test_files_are_short():
    for path in [*(ROOT / PACKAGE).rglob('*.py'), *(ROOT / 'configs').rglob('*.py')]:
        lines = len(path.read_text().splitlines())
        assert lines <= 350, f'{path.relative_to(ROOT)} has {lines} lines'
