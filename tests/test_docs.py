"""Prose of the pages stays narrow enough to read beside code."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [*sorted((ROOT / 'docs').glob('*.md')), ROOT / 'launch/README.md', ROOT / 'CONTRIBUTING.md']
WIDTH = 100


def prose(text: str) -> list[tuple[int, str]]:
    """(number, line) of all lines but code blocks, fenced or indented, and tables."""
    lines, in_code, code_may_follow = [], False, True
    for number, line in enumerate(text.splitlines(), start=1):
        fence = line.lstrip().startswith('```')
        in_code ^= fence
        indented = code_may_follow and line.startswith(' ' * 4)
        code_may_follow = indented or not line.strip()
        if not (in_code or fence or indented or line.lstrip().startswith('|')):
            lines.append((number, line))
    assert not in_code, 'a code block is not closed'
    return lines


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_at_most_a_hundred_columns_wide(page):
    wide = [number for number, line in prose(page.read_text()) if len(line) > WIDTH]
    assert not wide, f'{page.relative_to(ROOT)}: lines {wide} are wider than {WIDTH} columns'


def test_code_blocks_and_tables_are_no_prose():
    text = 'a\n    b\n\n| c |\n\n```bash\nd\n```\n\n    e\n\n1. f\n   ```\n   g\n   ```\n'
    assert [line for _, line in prose(text) if line] == ['a', '    b', '1. f']
