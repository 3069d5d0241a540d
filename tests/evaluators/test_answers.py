"""Accuracies by type and their baselines, by hand and by scikit-learn."""

import json

import pytest
from sklearn.metrics import accuracy_score, f1_score

from semmim_jax.data.answers import vqa_accuracy
from semmim_jax.evaluators import answers


def entry(target, kind, **fields):
    return {'targets': [target], 'question_type': kind, **fields}


def test_answers_by_type_beside_the_majority():
    entries = [
        entry('red', 'colour'),
        entry('red', 'colour'),
        entry('blue', 'colour'),
        entry('yes', 'exists'),
        {'targets': ['2', 'two dogs'], 'question_type': 'count'},
    ]
    report = answers.score_answers(['Red.', 'blue', 'the blue', 'no', '2 dogs'], entries)
    assert report.figures == pytest.approx(
        {'accuracy': 3 / 5, 'accuracy_colour': 2 / 3, 'accuracy_exists': 0, 'accuracy_count': 1}
    )
    assert report.chance == pytest.approx(
        {'accuracy': 4 / 5, 'accuracy_colour': 2 / 3, 'accuracy_exists': 1, 'accuracy_count': 1}
    )
    assert report.details['by_question_type']['colour']['answer'] == 'red'


def test_annotated_answers_by_the_official_accuracy():
    given = [['cat'] * 2 + ['dog'] * 8, ['dog'] * 10, ['no'] * 10]
    kinds = ['what is', 'what is', 'is it']
    entries = [
        entry(annotators[-1], kind, annotators=annotators, answer_type=kind.split()[0])
        for annotators, kind in zip(given, kinds, strict=True)
    ]
    report = answers.score_answers(['cat', 'dog', 'yes'], entries)
    assert vqa_accuracy('cat', given[0]) == pytest.approx(0.6)
    assert report.figures == pytest.approx(
        {'accuracy': 1.6 / 3, 'accuracy_what': 0.8, 'accuracy_is': 0}
    )
    assert report.chance == pytest.approx({'accuracy': 1, 'accuracy_what': 1, 'accuracy_is': 1})
    assert set(report.details['by_question_type']) == {'what is', 'is it'}


def test_one_type_has_one_line():
    report = answers.score_answers(['a'], [{'targets': ['x']}])
    assert (report.figures, report.chance) == ({'accuracy': 0.0}, {'accuracy': 1.0})


def test_labels():
    truth = ['good', 'good', 'bad', 'bad', 'bad', 'so so']
    given = ['good', 'bad', 'bad', 'bad', 'good', 'so so']
    report = answers.score_labels(given, [{'label': label} for label in truth])
    assert report.figures == pytest.approx(
        {
            'accuracy': accuracy_score(truth, given),
            'macro_f1': f1_score(truth, given, average='macro'),
        }
    )
    # Always 'bad': precision 1/2, recall 1, so F1 2/3 for one of three labels.
    assert report.chance == pytest.approx({'accuracy': 1 / 2, 'macro_f1': 2 / 9})


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='shorter'):
        answers.score_answers(['a'], [])


def test_submission_files(tmp_path):
    answers.write_vqa_results(tmp_path / 'vqa.json', {9: 'two', 8: 'yes'})
    assert json.loads((tmp_path / 'vqa.json').read_text()) == [
        {'question_id': 9, 'answer': 'two'},
        {'question_id': 8, 'answer': 'yes'},
    ]
    answers.write_nlvr2_results(tmp_path / 'n.csv', {'dev-1-0-0': 'True', 'dev-1-0-1': 'False'})
    assert (tmp_path / 'n.csv').read_text() == 'dev-1-0-0,True\ndev-1-0-1,False\n'
