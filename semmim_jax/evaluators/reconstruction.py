"""What the tokens of a discrete VAE keep of unseen images, and how many of its codes they use."""

from typing import Any

import numpy as np

from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.inference.predictor import to_host
from semmim_jax.viz.reconstructions import draw_reconstructions

SHOWN = 12  # images of the picture, the first ones


def evaluate(predict: Any, data: EvalData) -> Report:
    """The error from tokens alone, the use of the codes, and originals beside reconstructions.

    Figures: `reconstruction`, mean square error of normalised pixels, whose chance is that of one
    colour, the images' mean; `used_codes`; `code_entropy` of the shares of the codes over all
    patches, in nats, whose chance is that of even use; `modal_share`, that of the commonest code,
    whose chance is even use too; `images`.

    Args:
      predict: 'reconstruct', see `tasks.dvae.TrainDVAE.predict_fns`.
      data: the evaluation set.
    """
    parts, shown, codes = [], [], 0
    for batch in data.image_batches():
        outputs = to_host(predict('reconstruct', batch['image']))
        outputs = {name: part[batch['valid']] for name, part in outputs.items()}
        parts.append([outputs[name] for name in ('tokens', 'errors', 'moments')])
        first = data.whole(batch['image'])[batch['valid']], outputs['images'], outputs['tokens']
        shown += list(zip(*first))[: SHOWN - len(shown)]
        codes = int(outputs['num_codes'][0])
    if not data.scores:
        return Report({})
    tokens, errors, moments = map(np.concatenate, zip(*parts))
    figures, chance = code_use(tokens, codes)
    figures = {'reconstruction': float(errors.mean()), **figures, 'images': len(errors)}
    mean, square = moments.mean(axis=0, dtype=np.float64)  # [3] each
    chance['reconstruction'] = float((square - mean**2).mean())
    picture = draw_reconstructions(
        *map(np.stack, zip(*shown)), codes=codes, attribution=data.attribution
    )
    return Report(figures, chance=chance, pictures={'reconstructions': picture})


def code_use(tokens: np.ndarray, codes: int) -> tuple[dict[str, float], dict[str, float]]:
    """How evenly tokens [...] use so many codes: figures, and those of even use."""
    shares = np.bincount(tokens.ravel(), minlength=codes) / tokens.size
    used = shares[shares > 0]
    figures = {
        'used_codes': len(used),
        'code_entropy': float(-(used * np.log(used)).sum()),
        'modal_share': float(shares.max()),
    }
    even = {'used_codes': codes, 'code_entropy': float(np.log(codes)), 'modal_share': 1 / codes}
    return figures, even
