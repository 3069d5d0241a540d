"""Seconds of a step of `make demo`, here and at another commit, in turns.

    python -m benchmarks.demo_step --against=COMMIT      # from the root; some ten minutes
    taskset -c 0 python -m benchmarks.demo_step          # the working tree alone, on one core
    python -m benchmarks.demo_step --memory=kept,large,small

A turn is `python -m semmim_jax.main` for some steps of the demo's config, without evaluation, in
the working tree or in a fresh checkout of the commit; its ledger has the seconds of each step, with
what the data pipeline took from the same cores. The first steps of a turn do not count. Prints for
each way the median over its turns of a turn's median step, by the clock, and the ratio to the first
way. Memory: how glibc gives it (docs/performance.md section 6); `make demo` asks for `kept`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import memory

WARM = 5  # steps of a turn that do not count


def step_seconds(tree: pathlib.Path, *, steps: int, kind: str, cache: pathlib.Path) -> float:
    """Median seconds of a step of the demo in a checkout.

    Args:
      tree: the checkout.
      steps: to train.
      kind: of memory, a key of `memory.TUNABLES`.
      cache: of compiled programs.

    Raises:
      subprocess.CalledProcessError: the training failed.
    """
    env = {**os.environ, 'PYTHONPATH': str(tree), 'JAX_COMPILATION_CACHE_DIR': str(cache)}
    env['GLIBC_TUNABLES'] = memory.TUNABLES[kind]
    with tempfile.TemporaryDirectory() as folder:
        words = f'--workdir={folder}/run', f'--config.train.steps={steps}', '--config.data.eval='
        command = [sys.executable, '-m', 'semmim_jax.main', '--config=configs/pretrain.py:demo']
        ran = subprocess.run([*command, *words], cwd=tree, env=env, capture_output=True, text=True)
        if ran.returncode:
            sys.stderr.write(ran.stderr[-2000:])
            ran.check_returncode()
        lines = pathlib.Path(folder, 'run', 'ledger.jsonl').read_text().splitlines()
    spent = [json.loads(line) for line in lines]
    seconds = [x['seconds'] for x in spent if x.get('phase') == 'step' and x['step'] > WARM]
    return statistics.median(seconds)


def is_commit(name: str) -> bool:
    """Whether this repository has a commit of that name."""
    command = ['git', 'rev-parse', '--quiet', '--verify', f'{name}^{{commit}}']
    return not subprocess.run(command, capture_output=True).returncode


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[pathlib.Path]:
    """A folder with the tree of a commit; '' for the working tree."""
    if not commit:
        yield pathlib.Path.cwd()
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, 'tree')
        subprocess.run(['git', 'worktree', 'add', '--quiet', '--detach', tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run(['git', 'worktree', 'remove', '--force', tree], check=True)


def main() -> None:
    """Runs the turns and prints a line a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--against', default='', help='a commit; "": none')
    parser.add_argument('--memory', default='kept', help='kept, large, small, with commas')
    parser.add_argument('--rounds', default=3, type=int)
    parser.add_argument('--steps', default=40, type=int, help='of a turn')
    args = parser.parse_args()
    kinds = args.memory.split(',')
    if wrong := set(kinds) - memory.TUNABLES.keys():
        parser.error(f'--memory: {", ".join(sorted(wrong))}: {", ".join(memory.TUNABLES)}')
    if args.steps <= WARM:
        parser.error(f'--steps={args.steps}: more than {WARM}, which do not count')
    commits = ['', *([args.against] if args.against else [])]
    ways = [(commit, kind) for commit in commits for kind in kinds]
    turns: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    if args.against and not is_commit(args.against):
        parser.error(f'--against={args.against}: no commit of this repository')
    with contextlib.ExitStack() as stack:
        trees = {commit: stack.enter_context(checkout(commit)) for commit in commits}
        caches = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number in range(args.rounds):
            for commit, kind in ways:
                cache = caches / (commit or 'here')
                took = step_seconds(trees[commit], steps=args.steps, kind=kind, cache=cache)
                turns[commit, kind].append(took)
                name = f'{commit or "here"}, memory {kind}'
                print(f'round {number + 1}: {name}: {took:.3f} s', flush=True)
    first = statistics.median(turns[ways[0]])
    print(f'\n{"way":28} {"s a step":>8} {"of the first":>12}')
    for commit, kind in ways:
        median = statistics.median(turns[commit, kind])
        name = f'{commit or "here"}, memory {kind}'
        print(f'{name:28} {median:8.3f} {median / first:12.2f}')


if __name__ == '__main__':
    main()
