"""Answers and labels against the truth, overall and by type, beside the best constant guess."""

import csv
import json
import pathlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from semmim_jax.data.answers import normalise_answer, vqa_accuracy
from semmim_jax.evaluators.report import Report


def score_answers(answers: Sequence[str], entries: Sequence[dict]) -> Report:
    """Accuracy of free-form answers, with the majority answer of each question type as chance.

    An entry with annotators counts by the official VQA accuracy, another is right if the answer is
    one of its targets, both in normal form. The majority answer of a type is the commonest first
    target among these very entries. Figures by answer type where entries have one, else by
    question type; every question type is in the details.

    Args:
      answers: in the order of the entries.
      entries: of source.entry; with targets or a label, maybe annotators, question_type,
        answer_type.
    """
    scores = [answer_score(answer, entry) for answer, entry in zip(answers, entries, strict=True)]
    types = [entry.get('question_type', '') for entry in entries]
    firsts = [_targets(entry)[0] for entry in entries]
    guesses = _majority(firsts, types)
    guessed = [answer_score(guesses[t], entry) for t, entry in zip(types, entries, strict=True)]
    groups = [entry.get('answer_type', t) for entry, t in zip(entries, types, strict=True)]
    report = _by_type('accuracy', scores, guessed, groups)
    report.details['by_question_type'] = {
        kind: {'accuracy': value, 'majority': chance, 'answer': guesses[kind]}
        for kind, value, chance in _means(scores, guessed, types)
    }
    return report


def score_labels(labels: Sequence[str], entries: Sequence[dict]) -> Report:
    """Accuracy and macro F1 of labels, with the majority label of each question type as chance.

    Args:
      labels: in the order of the entries.
      entries: of source.entry; with label, maybe question_type.
    """
    from sklearn.metrics import f1_score  # a second at every start of a training, which needs none

    truth = [entry['label'] for entry in entries]
    types = [entry.get('question_type', '') for entry in entries]
    guesses = _majority(truth, types)
    constant = [guesses[t] for t in types]
    equal = lambda predicted: [float(a == b) for a, b in zip(predicted, truth, strict=True)]
    report = _by_type('accuracy', equal(labels), equal(constant), types)
    f1 = lambda predicted: float(f1_score(truth, predicted, average='macro', zero_division=0))
    report.figures['macro_f1'], report.chance['macro_f1'] = f1(labels), f1(constant)
    return report


def write_vqa_results(path: str | pathlib.Path, answers: Mapping[int, str]) -> None:
    """The submission file of the VQA challenge: [{"question_id": int, "answer": str}, ...]."""
    results = [{'question_id': int(key), 'answer': answer} for key, answer in answers.items()]
    pathlib.Path(path).write_text(json.dumps(results) + '\n')


def write_nlvr2_results(path: str | pathlib.Path, labels: Mapping[str, str]) -> None:
    """What NLVR2's evaluation reads: lines of identifier,True or identifier,False."""
    with open(path, 'w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(labels.items())


def answer_score(answer: str, entry: dict) -> float:
    """Official VQA accuracy where annotators are known, else whether it is one of the targets."""
    if 'annotators' in entry:
        return vqa_accuracy(answer, entry['annotators'])
    return float(normalise_answer(answer) in map(normalise_answer, _targets(entry)))


def _targets(entry: dict) -> list[str]:
    return entry.get('targets') or [entry['label']]


def _majority(truths: Sequence[str], types: Sequence[str]) -> dict[str, str]:
    """The commonest truth of each type."""
    counts = defaultdict(Counter)
    for truth, kind in zip(truths, types, strict=True):
        counts[kind][truth] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in counts.items()}


def _by_type(name: str, scores: list, guessed: list, types: list) -> Report:
    """Means overall and, where there is more than one type, of each as NAME_TYPE."""
    report = Report({name: float(np.mean(scores))}, chance={name: float(np.mean(guessed))})
    means = _means(scores, guessed, types)
    for kind, value, chance in means if len(means) > 1 else []:
        report.figures[f'{name}_{kind}'.replace(' ', '_')] = value
        report.chance[f'{name}_{kind}'.replace(' ', '_')] = chance
    return report


def _means(scores: list, guessed: list, types: list) -> list[tuple[str, float, float]]:
    pairs_of = defaultdict(list)
    for kind, pair in zip(types, zip(scores, guessed, strict=True), strict=True):
        pairs_of[kind].append(pair)
    return [(kind, *np.mean(pairs, axis=0).tolist()) for kind, pairs in sorted(pairs_of.items())]
