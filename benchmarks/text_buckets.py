"""What padding the texts of a batch to the shortest bucket saves, from the lengths of the captions.

    python -m benchmarks.text_buckets                          # from the root: the demo; a minute
    python -m benchmarks.text_buckets --config=configs/pretrain.py:own \\
        --config.data.train=captions:LIST.json --buckets=12,20 --batches=32,256

A row a batch size: the share of batches padded to each length, their mean, tokens saved against
padding to `data.max_tokens`, and FLOPs of the step saved, as counted in the lowered program. The
texts of a batch are taken as drawn at random from the captions.
"""

import pathlib
import sys

import ml_collections
import numpy as np
from absl import app, flags

from semmim_jax.cli.parser import define_config, parse

_CONFIG = define_config('configs/pretrain.py:demo', 'experiment')
_BUCKETS = flags.DEFINE_list('buckets', ['15', '16'], 'lengths below data.max_tokens')
_BATCHES = flags.DEFINE_list('batches', ['8', '16', '64', '256', '1024'], 'sizes of a batch')
CAPTIONS = 20_000  # records whose captions are looked at


def main(argv: list[str]) -> None:
    """Prints the table."""
    import jax

    from semmim_jax.data.readers.sources import make_source
    from semmim_jax.data.text import clean_caption
    from semmim_jax.data.text_lengths import bucket_shares
    from semmim_jax.data.unreadable import readable_entries
    from semmim_jax.planning import program
    from semmim_jax.run.fingerprint import spread
    from semmim_jax.run.initial_weights import run_tokenizer
    from semmim_jax.run.resolve import resolve
    from semmim_jax.tasks.registry import find_task
    from semmim_jax.training.sharding import make_mesh

    try:
        config = ml_collections.ConfigDict(resolve(_CONFIG.value, None).to_dict())
        config.data.text_buckets = tuple(int(x) for x in _BUCKETS.value)
        source = make_source(config.data.train, config.data)
        tokenizer = run_tokenizer(config, source, None, workdir=pathlib.Path())
        mesh = make_mesh(dict(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
        cost = program.flops_by_length(config, find_task(config), mesh)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    entries = readable_entries(source, spread(len(source), CAPTIONS))
    captions = [text for entry in entries for text in entry['captions']]
    if config.data.clean_text:
        captions = [clean_caption(text, max_words=config.data.max_words) for text in captions]
    lengths, longest = list(cost), config.data.max_tokens
    texts = np.minimum([tokenizer.length(text) for text in captions], longest)
    print(f'{len(texts):,} captions: {texts.mean():.2f} tokens in the mean, {texts.max()} at most')
    print(f'a step of {longest} tokens: {cost[longest] / 1e9:.4g} GFLOP a sample')
    heads = ''.join(f'| {length} tokens ' for length in lengths)
    print(f'\n| batch {heads}| mean | tokens saved | FLOPs saved |')
    print('|---' * (len(lengths) + 4) + '|')
    for size in map(int, _BATCHES.value):
        shares = bucket_shares(texts, lengths, batch_size=size)
        mean = shares @ lengths
        spent = shares @ list(cost.values()) / cost[longest]
        cells = ' | '.join(f'{share:.1%}' for share in shares)
        print(f'| {size} | {cells} | {mean:.1f} | {1 - mean / longest:.1%} | {1 - spent:.1%} |')
    no_padding = texts.mean()
    print(f'\nwithout any padding: {1 - no_padding / longest:.1%} of the tokens')


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
