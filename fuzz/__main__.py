"""Feeds mutated input to everything that reads files or flags.

    python -m fuzz --examples=20000      # from the root of the project; about an hour

An input is accepted, or refused by the error that the reader documents, in one line. Anything else
is a failure: another exception, more than a minute of work, a write outside the example's folder, a
connection, a new process, an unpickled class. Prints a table and every failure's smallest example;
exits with 1 if there is one.
"""

import argparse
import sys

from fuzz.engine import fuzz, fuzz_by_coverage


def main() -> None:
    """Runs all targets, or those named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('targets', nargs='*', help='of fuzz/targets.py; all')
    parser.add_argument('--examples', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--coverage', metavar='TARGET', help='by Atheris: pip install atheris')
    flags = parser.parse_args()
    if flags.coverage:
        fuzz_by_coverage(flags.coverage, examples=flags.examples, seed=flags.seed)
    from fuzz.targets import TARGETS

    if wrong := set(flags.targets) - TARGETS.keys():
        parser.error(f'no target {", ".join(wrong)}: there are {", ".join(TARGETS)}')
    names = flags.targets or list(TARGETS)
    total = sum(TARGETS[name].share for name in names)
    print(
        f'{"target":12} {"examples":>8} {"accepted":>8} {"refused":>8} {"seconds":>8}', flush=True
    )
    results = {}
    for name in names:
        examples = round(flags.examples * TARGETS[name].share / total)
        results[name] = r = fuzz(TARGETS[name], examples=examples, seed=flags.seed)
        print(
            f'{name:12} {r.accepted + r.refused:8} {r.accepted:8} {r.refused:8} {r.seconds:8.0f}'
            f'{"   FAILED" if r.failure else ""}',
            flush=True,
        )
    done = sum(r.accepted + r.refused for r in results.values())
    failed = [name for name, r in results.items() if r.failure]
    print(f'{done} inputs, {len(failed)} readers failed')
    for name in failed:
        print(f'\n{name}\n{results[name].failure}')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
