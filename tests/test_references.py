"""References between pages and code lead somewhere, and back.

docs/method.md and docs/design.md name functions as `path: name`; code and pages name their sections
as "section N" after the page's path. A broken reference fails here with its place.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ('docs/method.md', 'docs/design.md')
SUFFIXES = ('.py', '.md', '.cfg')
COMPUTED = tuple('123456789')  # sections of docs/method.md that code computes

_HEADING = re.compile(r'^#{2,} (\d+(?:\.\d+)*)\b', re.MULTILINE)
_FUNCTION = re.compile(r'`([\w/]+\.py): ([\w.]+)`')
_NUMBERS = r'(\d+(?:\.\d+)*(?:(?:, | and | to )\d+(?:\.\d+)*)*)'
_SECTION = re.compile(rf'\b(method|design)\.md[)`]*,? sections? {_NUMBERS}')
_OWN_SECTION = re.compile(rf'\b[Ss]ections? {_NUMBERS}')  # a page's of itself
_OLD = re.compile(r'\b(?:METHOD|DESIGN)(?:\.md)?(?:\'s)? (?:sections? \d|[a-z])')


def files() -> Iterator[pathlib.Path]:
    """Every page, module and setup file of the repository."""
    for path in sorted(ROOT.rglob('*')):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith('.') or part in ('build', 'dist', 'runs') for part in parts)
        if path.suffix in SUFFIXES and not hidden:
            yield path


def joined(text: str) -> str:
    """The text on one line, so that a reference may be broken over two, in comments as well."""
    return re.sub(r'\s+(?:# )?', ' ', text)


def headings(page: str) -> set[str]:
    """Numbers of a page's headings."""
    return set(_HEADING.findall((ROOT / page).read_text()))


def sections(text: str) -> set[tuple[str, str]]:
    """(page, number) of every section that a text refers to after the page's name."""
    matches = _SECTION.findall(joined(text))
    return {(f'docs/{page}.md', n) for page, numbers in matches for n in expanded(numbers)}


def own_sections(page: str) -> set[tuple[str, str]]:
    """(page, number) of every section that a page refers to as its own."""
    rest = _SECTION.sub('', joined((ROOT / page).read_text()))
    return {(page, n) for numbers in _OWN_SECTION.findall(rest) for n in expanded(numbers)}


def expanded(numbers: str) -> Iterator[str]:
    """The numbers of a list such as "2, 4 to 6 and 8.1"."""
    for part in re.split(', | and ', numbers):
        first, _, last = part.partition(' to ')
        yield from map(str, range(int(first), int(last) + 1)) if last else [first]


def listed(page: str) -> list[tuple[str, str, str]]:
    """(top-level section, path, name) of every function that a page lists."""
    _, *parts = re.split(r'^## ', (ROOT / page).read_text(), flags=re.MULTILINE)
    numbered = ((re.match(r'\d*', part)[0], part) for part in parts)
    return [(number, *entry) for number, part in numbered for entry in _FUNCTION.findall(part)]


def located(path: str) -> pathlib.Path:
    """The file of a listed path, which is relative to the package or to the repository."""
    inner = ROOT / 'semmim_jax' / path
    return inner if inner.exists() else ROOT / path


def docstrings(source: str) -> dict[str, str]:
    """Name -> docstring of every function and class; methods as Class.name."""
    by_name = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                by_name[prefix + child.name] = ast.get_docstring(child) or ''
                if isinstance(child, ast.ClassDef):
                    visit(child, f'{prefix}{child.name}.')

    visit(ast.parse(source), '')
    return by_name


@pytest.mark.parametrize('page', PAGES)
def test_a_listed_function_exists(page):
    lost = []
    for _, path, name in listed(page):
        file = located(path)
        if not file.exists() or name not in docstrings(file.read_text()):
            lost.append(f'{page}: `{path}: {name}`')
    assert not lost, '\n'.join(lost)


def test_every_computed_section_lists_functions():
    assert {number for number, _, _ in listed('docs/method.md')} >= set(COMPUTED)


def test_a_listed_functions_docstring_names_the_section():
    silent = []
    for number, path, name in listed('docs/method.md'):
        file = located(path)
        text = docstrings(file.read_text()).get(name, '') if file.exists() else ''
        named = {section.split('.')[0] for page, section in sections(text) if 'method' in page}
        if number not in named:
            silent.append(f'{path}: {name} does not name docs/method.md section {number}')
    assert not silent, '\n'.join(silent)


def test_a_section_that_is_referred_to_exists():
    known = {page: headings(page) for page in PAGES}
    named = {str(path.relative_to(ROOT)): sections(path.read_text()) for path in files()}
    for page in PAGES:
        named[page] |= own_sections(page)
    lost = [
        f'{path}: {page} has no section {number}'
        for path, numbers in named.items()
        for page, number in sorted(numbers)
        if number not in known[page]
    ]
    assert not lost, '\n'.join(lost)


def test_nothing_refers_to_a_page_outside_the_repository():
    lost = [
        f'{path.relative_to(ROOT)}: {match}'
        for path in files()
        for match in _OLD.findall(joined(path.read_text()))
    ]
    assert not lost, '\n'.join(lost)


# The page's name is put in, so that these texts are no references of this file.
@pytest.mark.parametrize(
    ('text', 'numbers'),
    [
        ('see {} section 3.', {'3'}),
        ('({} sections 2, 4 and 6.1)', {'2', '4', '6.1'}),
        ('{} sections 2 to 5', {'2', '3', '4', '5'}),
        ('# {} section\n# 12', {'12'}),
        ('[the method]({}), section 7', {'7'}),
        ('see {}.', set()),
    ],
)
def test_a_reference_is_seen(text, numbers):
    assert sections(text.format(PAGES[0])) == {(PAGES[0], number) for number in numbers}


@pytest.mark.parametrize('text', ['{} section 3', '{}.md section 3', "{}'s formulas"])
@pytest.mark.parametrize('page', ['METHOD', 'DESIGN'])
def test_an_old_reference_is_seen(text, page):
    assert _OLD.search(text.format(page))


def test_names_of_a_module_are_those_of_its_functions_classes_and_methods():
    source = 'def f():\n    "a"\n    def inner(): ...\nclass A:\n    "b"\n    def g(self): "c"\n'
    assert docstrings(source) == {'f': 'a', 'A': 'b', 'A.g': 'c'}
