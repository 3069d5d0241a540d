"""FLOPs of the full-size training step: arithmetic of docs/method.md section 6, and count.

    python -m benchmarks.step_flops          # from the root of the project; nothing is allocated

GFLOP per sample, 2 for each multiply-add, matrix products and attention only. The arithmetic is
that of the trimmed step, pass by pass, from the config alone. The count is taken from the lowered
step (`training/flops.py`), whose products carry the names of the model's methods: forward covers
student and teacher, backward is the student's alone and costs twice its forward pass.
"""

import argparse
import collections
import re
from typing import Any, NamedTuple

import ml_collections

from configs.pretrain import get_config
from semmim_jax.planning import program
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import flops, sharding

_ALBEF = {'prefix': 0.0, 'agreement': 0.0, 'mim': 0.0}
OPTIONS = {  # variant of configs/pretrain.py, and weights that are other than its own
    'SemMIM': ('base', {}),
    'SemMIM, literal form': ('base-literal', {}),
    'literal, without PrefixLM': ('base-literal', {'prefix': 0.0}),
    "ALBEF's step": ('base-literal', _ALBEF),
}
# Part of the model -> the named scopes that its matrix products run under.
SCOPES = {
    'image tower': ('encode_image',),
    'predictor': ('predict_patches',),
    'text tower': ('encode_text',),
    'fusion, image k/v': ('image_context',),
    'fusion': ('fuse', 'fuse_body', 'fuse_last'),
    'injection': ('inject', 'inject_words', 'read_words'),
    'words loss': ('word_presence',),
    'discrete VAE': ('Encoder',),
    'dVAE head': ('dvae_head',),
    'vocabulary head': ('predict_words',),
    'encoding head': ('encode_patches', 'encoding_head'),
    'decoder': ('decode',),
    'other': ('', 'project_image', 'project_text', 'match', 'bne,be->bn', 'to_fusion'),
}
BATCH = 2  # pairs of the lowered step; the words loss alone costs more a sample in a larger batch
SPECIAL = program.special_tokens(get_config('base'))
# Of a product in the lowered step; what is computed again (the queue's similarities) has jvp twice.
_PATH = r'jit\(step\)/(?P<back>transpose\()?jvp\((?:jvp\(\))?(?:SemMIM\.)?(?P<scope>[^)]*)'


class Pass(NamedTuple):
    """A row of the table in docs/method.md section 6: forward FLOPs per sample, and the part."""

    name: str
    part: str
    student: float
    teacher: float = 0.0


def full_size(
    weights: dict[str, float], *, variant: str = 'base'
) -> ml_collections.FrozenConfigDict:
    """configs/pretrain.py with some weights of the losses changed, nothing computed twice."""
    config = get_config(variant)
    config.model.update(remat='none', dtype='float32')
    config.task.weights.update(weights)
    return ml_collections.FrozenConfigDict(config)


def changed(
    config: ml_collections.FrozenConfigDict, changes: dict[str, Any]
) -> ml_collections.FrozenConfigDict:
    """The config with some fields changed, named as 'task.views'."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.update_from_flattened_dict(changes)
    return ml_collections.FrozenConfigDict(config)


def layer(tower: Any, tokens: int, *, cross: int = 0, queries: int | None = None) -> float:
    """FLOPs of a transformer layer: 12 n D^2 + 2 n^2 D (+ 2 n D^2 + 2 n c D) multiply-adds.

    Args:
      tower: width and mlp_width.
      tokens: n, keys of the self-attention.
      cross: c, tokens of the context; their keys and values (`keys_values`) are not counted here.
      queries: positions computed; None: all.
    """
    d, q = tower.width, tokens if queries is None else queries
    products = 2 * tokens * d**2 + 2 * q * d**2 + 2 * q * tokens * d  # k, v; query, out; attention
    if cross:
        products += 2 * q * d**2 + 2 * q * cross * d
    return 2 * (products + 2 * q * d * tower.mlp_width)


def keys_values(tower: Any, tokens: int, layers: int) -> float:
    """FLOPs of a context's keys and values in all layers: 2 c D^2 multiply-adds a layer."""
    return 2 * layers * 2 * tokens * tower.width**2


def arithmetic(config: Any) -> list[Pass]:
    """The table of docs/method.md section 6, of codes or tokens, for all views but `same`.

    Args:
      config: the experiment; a weight of 0 leaves the passes of that loss out. The words of a batch
        are taken as all different, up to `task.mim.lexicon_size`.
    """
    image, text = config.model.image, config.model.text
    fusion, mim, on = config.model.fusion_depth, config.task.mim, config.task.weights
    patches = (image.image_size // image.patch_size) ** 2
    n, t, m = patches + 1, config.data.max_tokens, config.task.max_masked
    p, batch = round(mim.ratio * patches), config.train.batch_size

    vit = image_tower(image, patches)
    bert = text.depth * layer(text, t)
    task = config.task
    one_view = task.views in ('single', 'masked')
    masked_view = on.mim or task.views == 'masked' or one_view and on.agreement
    dropped = p if mim.drop_masked and masked_view else 0
    # Tokens of the student's full view; shares of the rows that have a masked view, and its losses.
    s = n - dropped if task.views == 'masked' else n
    losses = mim.sample_share
    views = 1.0 if task.views == 'masked' else losses
    own = 0.0 if task.shared_towers else 1.0  # passes of the towers that are the teacher's own
    body = lambda n: (fusion - 1) * layer(text, t, cross=n)
    last = lambda n, queries: layer(text, t, cross=n, queries=queries)
    words = lambda tokens: 2 * tokens * text.width * (text.width + text.vocab_size)
    head = config.model.encoding
    encode = 2 * (
        text.width * head.hidden
        + head.hidden**2
        + head.hidden * head.bottleneck
        + head.bottleneck * head.codes
    )
    queue = 2 * 2 * config.task.queue_size * config.model.embed_dim
    # Where the widths differ, image tokens cross a bridge before fusion and decoder read them.
    bridge = lambda n: 2 * n * image.width * text.width if image.width != text.width else 0.0
    context = lambda n: bridge(n) + keys_values(text, n, fusion)

    passes = [
        Pass('ViT, full view', 'image tower', vit * (task.views != 'masked'), vit * own),
        Pass('text, clean', 'text tower', bert, bert * own),
        Pass('queue', 'other', queue, queue),
    ]
    if on.itm or on.mlm or on.prefix:
        needed = context(n) if on.mlm else 0.0
        passes.append(Pass('fusion image k/v, shared', 'fusion, image k/v', context(s), needed))
    if on.itm:
        passes.append(Pass('ITM, 3 passes', 'fusion', 3 * (body(s) + last(s, 1))))
    if on.mlm:
        passes += [
            Pass('text, masked', 'text tower', bert, bert * own),
            Pass('MLM, fusion', 'fusion', body(s) + last(s, m), body(n) + last(n, m)),
            Pass('MLM, head on masked', 'vocabulary head', words(m), words(m)),
        ]
    if on.agreement:
        share = losses if one_view else 1.0
        passes.append(Pass('encoding head, CLS', 'encoding head', share * encode, encode))
    if on.words:
        different = batch_words(config)
        looked = s - 1
        compare = looked * image.width + different * text.width / batch + looked * different
        cost = 2 * compare * config.model.embed_dim
        passes.append(Pass('words loss, presence', 'words loss', cost))
    if masked_view:
        seen = patches - dropped
        passes += [
            Pass('ViT, masked view', 'image tower', views * image_tower(image, seen)),
            Pass('predictor', 'predictor', losses * predictor(config.model, seen, dropped)),
        ]
    if on.mim:
        injection = (mim.injection_layers - 1) * layer(text, n, cross=t)
        injection += layer(text, n, cross=t, queries=p)
        injection += keys_values(text, t, mim.injection_layers) + bridge(n)
        grounded = word_injection(config, p)
        inject = lambda kind: {'cross_attention': injection, 'words': grounded}.get(kind, 0.0)
        look = read_words(config, patches) if mim.masking == 'words' else 0.0
        passes += [
            Pass(
                'injection',
                'injection',
                losses * inject(mim.inject_student),
                (0.0 if mim.target == 'dvae' else inject(mim.inject_teacher)) + look,
            ),
        ]
        if mim.target == 'dvae':
            tokens = 2 * p * text.width * config.model.dvae.codes
            passes += [
                Pass('discrete VAE', 'discrete VAE', 0.0, discrete_vae(config.model)),
                Pass('dVAE head, masked patches', 'dVAE head', losses * tokens),
            ]
        else:
            heads = losses * p * encode, p * encode
            passes.append(Pass('encoding head, masked patches', 'encoding head', *heads))
    if on.local:
        passes += [
            Pass('encoding head, view 2', 'encoding head', losses * patches * encode),
            Pass('bridge of view 2', 'injection', losses * bridge(n)),
        ]
    if on.prefix:
        depth = config.model.decoder_depth
        decoder = depth * layer(text, t, cross=s + t) + keys_values(text, s + t, depth)
        passes += [
            Pass('PrefixLM, text', 'text tower', bert),
            Pass('PrefixLM, fusion', 'fusion', body(s) + last(s, t)),
            Pass('PrefixLM, decoder', 'decoder', decoder + words(t)),
            Pass('PrefixLM, bridge', 'other', bridge(s)),
        ]
    return [row for row in passes if row.student or row.teacher]


def image_tower(image: Any, patches: int) -> float:
    """FLOPs of the image tower on so many patches and CLS."""
    embedded = 2 * patches * 3 * image.patch_size**2 * image.width
    return embedded + image.depth * layer(image, patches + 1)


def predictor(model: Any, seen: int, dropped: int) -> float:
    """FLOPs of predicting so many patches from those seen and CLS."""
    d, context = model.image.width, seen + 1
    products = 2 * context * d**2 + 2 * dropped * d**2 + 2 * dropped * context * d
    products += 2 * dropped * d * model.image.mlp_width
    return model.predictor_depth * 2 * products * (dropped > 0)


def discrete_vae(model: Any) -> float:
    """FLOPs of an image's tokens: per stage a convolution of 4 x 4, two of 3 x 3, one of 1 x 1."""
    side, width, inputs, total = model.image.image_size, model.dvae.width, 3, 0
    while side > model.image.image_size // model.image.patch_size:
        side //= 2
        total += side**2 * (16 * inputs * width + (9 + 9 + 1) * width**2)
        inputs, width = width, 2 * width
    return 2 * (total + side**2 * inputs * model.dvae.codes)


def batch_words(config: Any) -> int:
    """Different words that the words loss compares: as many as a batch has places for them."""
    known = config.task.mim.lexicon_size
    places = config.train.batch_size * (config.data.max_tokens - 2)
    return min(places, known + 1) if known else places


def read_words(config: Any, patches: int) -> float:
    """FLOPs of comparing some patches of an image with the words of its caption."""
    image, text, words = config.model.image, config.model.text, config.data.max_tokens - 2
    products = patches * image.width + words * text.width + patches * words
    return 2 * products * config.model.embed_dim


def word_injection(config: Any, patches: int) -> float:
    """FLOPs of adding to some patches of an image the words that they resemble."""
    image, text, words = config.model.image, config.model.text, config.data.max_tokens - 2
    inject = words * text.width**2 + patches * words * text.width
    bridge = patches * image.width * text.width if image.width != text.width else 0
    return read_words(config, patches) + 2 * (inject + bridge)


def training_total(passes: list[Pass]) -> float:
    """FLOPs of a training step per sample: 3 x student + teacher."""
    return sum(3 * row.student + row.teacher for row in passes)


def count(config: Any) -> dict[str, tuple[float, float]]:
    """FLOPs per sample that the lowered step holds: part -> (forward, backward).

    Raises:
      ValueError: for a product under a scope that `SCOPES` does not list.
    """
    parts = {scope: part for part, scopes in SCOPES.items() for scope in scopes}
    by_part = collections.defaultdict(lambda: [0.0, 0.0])
    batch_size = config.train.batch_size
    mesh = sharding.make_mesh(config.mesh)
    lowered, _, _ = program.lower_step(config, Pretrain, mesh)
    for path, cost in flops.matmul_flops(lowered).items():
        name = re.match(_PATH, path)
        if not name or name['scope'] not in parts:
            raise ValueError(f'matrix product under an unknown scope: {path}')
        by_part[parts[name['scope']]][bool(name['back'])] += cost / batch_size
    return {part: tuple(by_part[part]) for part in SCOPES if part in by_part}


def report(name: str, variant: str, weights: dict[str, float]) -> str:
    """The two tables of one option."""
    config = full_size(weights, variant=variant)
    config = changed(config, {'train.batch_size': BATCH})
    passes, counted = arithmetic(config), count(config)
    giga = lambda *values: ''.join(f'{value / 1e9:12.2f}' for value in values)
    lines = [f'{name}, GFLOP per sample', f'{"pass (forward)":32}{"student":>12}{"teacher":>12}']
    lines += [f'{row.name:32}{giga(row.student, row.teacher)}' for row in passes]
    lines += ['', f'{"":32}{"forward":>24}{"backward":>24}']
    lines += [f'{"part":32}' + f'{"arithmetic":>12}{"counted":>12}' * 2]
    for part, (forward, backward) in counted.items():
        student = sum(row.student for row in passes if row.part == part)
        teacher = sum(row.teacher for row in passes if row.part == part)
        lines.append(f'{part:32}{giga(student + teacher, forward, 2 * student, backward)}')
    total, total_counted = training_total(passes), sum(map(sum, counted.values()))
    share = f'{100 * total_counted / total - 100:+.2f}%'
    lines += ['', f'{"training step":32}{giga(total, total_counted)}{share:>12}', '']
    return '\n'.join(lines)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for name, option in OPTIONS.items():
        print(report(name, *option), flush=True)
    total = training_total(arithmetic(full_size({}))) / 1e9
    print(f'SemMIM, {get_config().train.batch_size} pairs a batch: {total:.2f}')


if __name__ == '__main__':
    main()
