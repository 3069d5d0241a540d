import json

from semmim_jax.evaluators import training_losses


def test_the_course_is_the_first_value_and_the_mean_of_the_last(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    values = [9.0, 4.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    lines = [{'step': 10 * i, 'train/loss_itc': v, 'train/lr': v} for i, v in enumerate(values)]
    path.write_text('\n'.join(json.dumps(line) for line in lines))
    report = training_losses.evaluate(path)
    assert report.details == {'loss_itc': {'first': 9.0, 'last': 3.0}}
    assert 'loss_itc' in report.text and 'lr' not in report.text


def test_a_run_without_metrics_has_no_course(tmp_path):
    report = training_losses.evaluate(tmp_path / 'metrics.jsonl')
    assert (report.text, report.details) == ('', {})
