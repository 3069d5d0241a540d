"""The model card of exported weights: what they are, what they saw, what they reached."""

import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from semmim_jax.data.readers.sources import attribution

_CARD = """\
---
library_name: pytorch
tags: [vision-language, image-text-retrieval, image-captioning]
---

# SemMIM

SemMIM (arXiv 2403.00249): image and text towers, fusion encoder and heads. Trained with semmim_jax.

| | |
|---|---|
| weights | {params}, after {step} of {steps} steps |
| parameters | {parameters:,} |
| image tower | width {image[width]}, {image[depth]} layers, {image[image_size]} px |
| text | width {text[width]}, layers: tower {text[depth]}, fusion {fusion_depth}, \
decoder {decoder_depth} |
| data | `{train}`, global batch {batch_size} |
| code | {commit} |

## Use

```python
import torch
from semmim_torch import SemMIM

model = SemMIM.load('.')
images = torch.stack([model.preprocess(image)])  # image: uint8 [h, w, 3]
with torch.no_grad():
    print(model.encode_image(images).feature @ model.encode_text(['a dog']).feature.T)
```

`semmim_torch.py` needs torch and nothing else. Parameters have ALBEF's names.

## Data and licence

{licence}

## Evaluation

{metrics}
"""


def model_card(
    config: Mapping[str, Any],
    *,
    params: str,
    parameters: int,
    step: int,
    results: Mapping[str, Any] | None,
) -> str:
    """The card as Markdown.

    Args:
      config: of the run.
      params: 'ema' or 'online'.
      parameters: number of values.
      step: of the checkpoint.
      results: of results.json; None if the run was not evaluated.
    """
    data, model, train = config['data'], config['model'], config['train']
    return _CARD.format(
        params={'ema': 'EMA (teacher)', 'online': 'online (student)'}[params],
        step=step,
        steps=train['steps'],
        parameters=parameters,
        image=model['image'],
        text=model['text'],
        fusion_depth=model['fusion_depth'],
        decoder_depth=model['decoder_depth'],
        train=data['train'],
        batch_size=train['batch_size'],
        commit=_commit(),
        licence=_licence(data),
        metrics=_metrics(results, data['eval'], config['eval']['params']),
    )


def _commit() -> str:
    root = pathlib.Path(__file__).parent.parent.parent
    command = ['git', '-C', str(root), 'rev-parse', 'HEAD']
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'commit not known'
    return f'exported at commit {found}'


def _licence(data: Mapping[str, Any]) -> str:
    name, credit = data['train'].partition(':')[2], attribution(data['train'])
    if credit:
        return f'The images of the training data show work of others: {credit}.'
    return (
        f'The licence of `{name}` was not recorded. Whoever publishes these weights states it here.'
    )


def _metrics(results: Mapping[str, Any] | None, source: str, params: str) -> str:
    if results is None:
        return 'Not evaluated.'
    lines = [f'On `{source}`, {params} parameters, after {results["step"]} steps.', '']
    lines += ['| figure | value | chance |', '|---|---|---|']
    for evaluator, report in results.items():
        if evaluator == 'step':
            continue
        for name, value in report['figures'].items():
            chance = report['chance'].get(name)
            beside = '' if chance is None else f'{chance:.4g}'
            lines.append(f'| {evaluator}/{name} | {value:.4g} | {beside} |')
    return '\n'.join(lines)
