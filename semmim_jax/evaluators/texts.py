"""What a task writes or chooses about each record: scored, listed, and as benchmarks' files.

The predict functions are those of `tasks.generate` ('generate', 'rank') and `tasks.classify`
('classify'). A set without truths, such as a benchmark's test set, gives its files alone.
"""

import functools
import json
import pathlib
from typing import Any

import numpy as np

from semmim_jax.data.text import clean_caption
from semmim_jax.evaluators import answers, captions
from semmim_jax.evaluators.report import EvalData, Report, spread
from semmim_jax.inference.outputs import writer
from semmim_jax.viz.predictions import Prediction, draw_predictions

_DRAWN = 24  # records in the picture
_NAMED = ('image_id', 'source_id', 'question_id', 'prompt')  # of an entry, for lists


def evaluate_captions(predict: Any, data: EvalData) -> Report:
    """Texts against several references; records of one image, or of one question, count as one."""
    entries, texts = _written(predict, data)
    if not data.scores:
        return Report({})
    by_key, names, references = {}, {}, {}
    for entry, text in zip(entries, texts, strict=True):
        key = entry.get('question_id', entry['image_id'])
        by_key.setdefault(key, text)
        names[key] = entry.get('source_id', key)
        references.setdefault(key, []).extend(entry.get('captions') or entry.get('targets', ()))
    if not all(references.values()):
        report = Report({}, 'captions: no references to compare with')
    else:
        if not data.data.vocab:  # a made vocabulary lacks what captions cannot hold
            plain = lambda text: data.tokenizer.plain(clean_caption(text, max_words=None))
            references = {key: [plain(t) for t in group] for key, group in references.items()}
        report = captions.score_captions(by_key, references)
    report.files |= _listed(entries, texts)
    report.pictures |= _drawn(entries, texts, data, right=lambda text, entry: None)
    if 'question_id' not in entries[0]:
        # Of shards the image id is a place in the set; the source's own is what scorers know.
        results = {names[key]: text for key, text in by_key.items()}
        if all(isinstance(name, int) for name in results):
            report.files['captions.json'] = functools.partial(
                captions.write_coco_results, captions=results
            )
    return report


def evaluate_answers(predict: Any, data: EvalData) -> Report:
    """Answers by the official VQA accuracy, beside each question type's majority answer."""
    entries, texts = _written(predict, data)
    if not data.scores:
        return Report({})
    if all('targets' in entry for entry in entries):
        report = answers.score_answers(texts, entries)
    else:
        report = Report({}, 'answers: no true answers to compare with')
    report.files |= _listed(entries, texts)
    right = lambda text, entry: answers.answer_score(text, entry) > 0
    report.pictures |= _drawn(entries, texts, data, right=right)
    numbers = [entry.get('question_id') for entry in entries]
    if all(isinstance(number, int) for number in numbers):
        report.files['vqa_results.json'] = functools.partial(
            answers.write_vqa_results, answers=dict(zip(numbers, texts, strict=True))
        )
    return report


def evaluate_labels(predict: Any, data: EvalData) -> Report:
    """Labels by accuracy and macro F1, beside the majority label."""
    entries, texts = _written(predict, data)
    if not data.scores:
        return Report({})
    if all('label' in entry for entry in entries):
        report = answers.score_labels(texts, entries)
    else:
        report = Report({}, 'labels: no true labels to compare with')
    report.files |= _listed(entries, texts)
    right = lambda text, entry: text == entry['label']
    report.pictures |= _drawn(entries, texts, data, right=right)
    names = [entry.get('question_id') for entry in entries]
    if all(isinstance(name, str) for name in names):
        report.files['nlvr2_results.csv'] = functools.partial(
            answers.write_nlvr2_results, labels=dict(zip(names, texts, strict=True))
        )
    return report


def _written(predict: Any, data: EvalData) -> tuple[list[dict], list[str]]:
    """The entry of each record, and the text that the task gives.

    Entries gain the score of the text and, of records that
    are files, their `files`.
    """
    files = getattr(data.source, 'files', lambda index: ())
    entries = [{'files': files(i), **data.source.entry(i)} for i in range(len(data.source))]
    target = data.data.get('max_target_tokens', 0)
    write = writer(predict, data.tokenizer, data.labels, max_target_tokens=target)
    texts = []
    for batch in data.record_batches():
        valid = batch.pop('valid')
        for (text, score), ok in zip(write(batch), valid, strict=True):
            if ok:
                entries[len(texts)]['score'] = score
                texts.append(text)
    return entries, texts


def _drawn(entries, texts, data: EvalData, *, right) -> dict[str, np.ndarray]:
    """The picture 'predictions' of a few records; right(text, entry) where the truth is known."""
    shown = []
    for index in spread(len(entries), _DRAWN):
        entry = entries[index]
        truths = entry.get('captions') or entry.get('targets') or [entry.get('label')]
        shown.append(
            Prediction(
                images=data.record_pixels(index),
                prompt=entry.get('prompt', ''),
                text=texts[index],
                truth=truths[0] or '',
                right=right(texts[index], entry) if truths[0] else None,
            )
        )
    return {'predictions': draw_predictions(shown, attribution=data.attribution)}


def _listed(entries: list[dict], texts: list[str]) -> dict[str, Any]:
    """predictions.jsonl: a line a record, with its files, ids, prompt, text, score and truth.

    The score is what inference/outputs.py says. The truth is the label, or the list of captions or
    answers; a record without truth has none.
    """
    lines = []
    for entry, text in zip(entries, texts, strict=True):
        line = {k: entry[k] for k in _NAMED if k in entry}
        if entry['files']:
            line = {'files': entry['files'], **line}
        line |= {'text': text, 'score': round(entry['score'], 6)}
        for name in ('captions', 'targets', 'label'):  # of which a record has one, or none
            if name in entry:
                line['truth'] = entry[name]
        lines.append(line)
    write = lambda path: pathlib.Path(path).write_text(
        ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines)
    )
    return {'predictions.jsonl': write}
