"""The model card of exported weights: what they are, what they saw, what they reached."""

import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from semmim_jax.data.readers.sources import attribution

_CARD = """\
---
library_name: pytorch
tags: [vision-language]
---

# {model}

{model} (arXiv {arxiv}), trained with semmim_jax on the task `{task}`.

| | |
|---|---|
| weights | {params}, after {step} of {steps} steps |
| parameters | {parameters:,} |
| image tower | width {image[width]}, {image[depth]} layers, {image[image_size]} px |
| text | width {text[width]}, layers: {layers} |
| data | `{train}`, global batch {batch_size} |
| code | {commit} |

## Use

```python
from {module} import {model}

model = {model}.load('.')
# An image is a path, a PIL image, or uint8 [h, w, 3].
print({use})
```

`{module}.py` and the files that it imports need torch and nothing else; paths of images need
Pillow. Parameters have {names} names.

## Data and licence

{licence}

## Evaluation

{metrics}
"""

_FAMILIES = {
    'semmim': dict(model='SemMIM', arxiv='2403.00249', module='semmim_torch', names="ALBEF's"),
    'scl': dict(
        model='SCL', arxiv='2211.13437', module='semmim_torch_scl', names="its authors' code's"
    ),
}
_USE = {
    'features': "model.encode_image('dog.jpg').feature @ model.encode_text('a dog').feature.T",
    'match': "model.match(['dog.jpg'], ['a dog'])",
    'caption': "model.caption('dog.jpg')",
    'answer': "model.answer('dog.jpg', 'what is it?')",
    'classify': "model.classify('dog.jpg', 'what is it?')",
    'classify_groups': "model.classify([('dog.jpg', 'cat.jpg')], ['both are dogs'])",
}


def model_card(
    config: Mapping[str, Any],
    *,
    family: str,
    layers: Mapping[str, int],
    params: str,
    parameters: int,
    step: int,
    results: Mapping[str, Any] | None,
) -> str:
    """The card as Markdown.

    Args:
      config: of the run.
      family: `Task.family`.
      layers: of each part of the text side that there is.
      params: 'ema' or 'online'.
      parameters: number of values.
      step: of the checkpoint.
      results: of results.json; None if the run was not evaluated.
    """
    data, model, train = config['data'], config['model'], config['train']
    return _CARD.format(
        **_FAMILIES[family],
        task=config['task']['name'],
        use=_USE[_use(config['task'])],
        params={'ema': 'EMA (teacher)', 'online': 'online (student)'}[params],
        step=step,
        steps=train['steps'],
        parameters=parameters,
        image=model['image'],
        text=model['text'],
        layers=', '.join(f'{name} {depth}' for name, depth in layers.items()),
        train=data['train'],
        batch_size=train['batch_size'],
        commit=_commit(),
        licence=_licence(data),
        metrics=_metrics(results, data['eval'], config['eval']['params']),
    )


def _use(task: Mapping[str, Any]) -> str:
    """Which of _USE shows what a task can do."""
    if 'classes' in task:
        return 'classify' if task['images'] == 1 else 'classify_groups'
    if 'decoding' in task:
        return 'caption' if task['context'] == 'image' else 'answer'
    if task['name'] == 'rank':
        return 'match'
    return 'features'


def _commit() -> str:
    root = pathlib.Path(__file__).parent.parent.parent
    command = ['git', '-C', str(root), 'rev-parse', 'HEAD']
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'commit not known'
    return f'exported at commit {commit}'


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
