"""Parameters of the full-size model by tower, from shapes alone.

python -m benchmarks.model_size       # from the root of the project; nothing is allocated
"""

import argparse
import collections

import jax
import ml_collections
from flax.core import meta

from benchmarks.step_flops import SPECIAL
from configs.pretrain import get_config
from semmim_jax.tasks.pretrain.task import Pretrain

TOWERS = {
    'image tower (ViT-B/16, 256 px)': ('image',),
    'text tower (embeddings, BERT layers 0-5)': ('text',),
    'fusion encoder (BERT layers 6-11, cross-attention)': ('fusion',),
    'encoding head (shared by CLS and patches)': ('encoding_head', 'mask_token'),
    'MLM head, tied to the word embeddings': ('mlm_head',),
    'ITC projections, ITM head, temperature': (
        'image_projection',
        'text_projection',
        'itm_head',
        'temperature',
    ),
    'decoder (12 layers, own embeddings, tied head)': ('decoder', 'decoder_head'),
}


def parameters() -> collections.Counter[str]:
    """Parameters of configs/pretrain.py:base by top-level name."""
    task = Pretrain(ml_collections.FrozenConfigDict(get_config('base')), SPECIAL)
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    return collections.Counter(
        {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    )


def main() -> None:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    counts = parameters()
    towers = {tower: sum(counts[name] for name in names) for tower, names in TOWERS.items()}
    assert sum(towers.values()) == counts.total(), 'a part of the model has no row'
    for tower, count in towers.items():
        print(f'{tower:52} {count:12,}')
    decoder = counts['decoder'] + counts['decoder_head']
    print(f'{"online without decoder":52} {counts.total() - decoder:12,}')
    print(f'{"online":52} {counts.total():12,}')


if __name__ == '__main__':
    main()
