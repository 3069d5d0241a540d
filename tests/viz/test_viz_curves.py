import json

import numpy as np
import pytest

from semmim_jax.viz import curves


def write(path, *lines):
    path.write_text('\n'.join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_truncated_last_line_is_skipped(tmp_path):
    for broken in ('{"step": 20, "train/lo', '7', '{"train/loss": 1.0}', '{"step": 2'):
        path = write(tmp_path / 'm.jsonl', {'step': 10, 'train/loss': 2.5}, broken)
        steps, values = curves.read_metrics(path)['train/loss']
        assert (steps.tolist(), values.tolist()) == ([10], [2.5])
        path.write_text(path.read_text() + '\n\n')
        assert curves.read_metrics(path)['train/loss'][0].tolist() == [10]


def test_broken_line_elsewhere_is_an_error_with_its_number(tmp_path):
    path = write(tmp_path / 'm.jsonl', {'step': 1, 'a': 1}, '{"step": 2, "a', {'step': 3, 'a': 1})
    with pytest.raises(ValueError, match=r'm\.jsonl, line 2'):
        curves.read_metrics(path)


def test_later_line_of_a_step_counts_and_steps_are_sorted(tmp_path):
    path = write(
        tmp_path / 'm.jsonl',
        {'step': 10, 'a': 1, 'name': 'x', 'flag': True},
        {'step': 30, 'a': 3},
        {'step': 20, 'a': 2, 'b': float('nan')},
        {'step': 30, 'a': 4},
    )
    series = curves.read_metrics(path)
    assert sorted(series) == ['a', 'b']
    assert series['a'][0].tolist() == [10, 20, 30] and series['a'][1].tolist() == [1, 2, 4]
    assert np.isnan(series['b'][1]).all()


def test_smoothing_keeps_constants_and_lines_and_skips_gaps():
    np.testing.assert_allclose(curves.smooth(np.full(30, 2.0), span=5), 2.0)
    line = np.arange(60.0)
    np.testing.assert_allclose(curves.smooth(line, span=6)[15:45], line[15:45])
    gaps = np.where(np.arange(30) % 7 == 3, np.nan, 2.0)
    gaps[11] = np.inf
    np.testing.assert_allclose(curves.smooth(gaps, span=5), 2.0)
    assert np.isnan(curves.smooth(np.full(4, np.nan), span=2)).all()
    assert curves.smooth(np.array([3.0]), span=0).tolist() == [3.0]


def test_curves_are_drawn(tmp_path):
    records = [
        {
            'step': s,
            'train/loss': 1 / s,
            'train/loss_itc': float('nan') if s == 5 else 2 / s,
            'train/itm_accuracy': s / 40,
            'train/teacher_entropy': 3.0,
            'eval/other': 1.0,
        }
        for s in range(1, 30)
    ]
    path = write(tmp_path / 'metrics.jsonl', *records, '{"step": 30, "tr')
    out = curves.draw_curves(path, num_codes=64, path=tmp_path / 'curves.png')
    assert out.stat().st_size < 1_500_000
    only_losses = write(tmp_path / 'l.jsonl', {'step': 1, 'train/loss': 1.0})
    assert curves.draw_curves(only_losses).shape[1] < curves.draw_curves(path).shape[1]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a run with two evaluations and gives the Matplotlib figure, and its axes by heading."""
    monkeypatch.setattr(curves.figure, 'finish', lambda figure, path: figure)
    train = [
        {
            'step': step,
            'train/loss_itc': 5 / step,
            'train/itm_accuracy': 0.7,
            'train/mlm_accuracy': step / 40,
            'train/a_teacher_with_a_long_name_mean_entropy': 3.0,
        }
        for step in range(1, 21)
    ]
    held_out = [
        {'step': 10, 'eval_losses/loss_itc': 2.5, 'eval_losses/mlm_accuracy': 0.2},
        {'step': 20, 'eval_losses/loss_itc': 2.25, 'eval_retrieval/tr@1_itc': 0.9},
    ]
    path = write(tmp_path / 'm.jsonl', *train, *held_out)
    figure = curves.draw_curves(path, num_codes=64, chance={'mlm_accuracy': 0.125, 'guidance': 1})
    figure.canvas.draw()
    return figure, dict(zip(['loss_itc', 'accuracy', 'entropy'], figure.axes, strict=True))


def lines_of(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_held_out_figures_are_drawn_beside_their_training(drawn):
    _, axes = drawn
    assert ([10, 20], [2.5, 2.25]) in lines_of(axes['loss_itc'])
    assert ([10], [0.2]) in lines_of(axes['accuracy'])
    assert 0.9 not in [y for a in axes.values() for _, ys in lines_of(a) for y in ys]
    assert ([10], [0.2]) not in lines_of(axes['loss_itc'])


def test_chance_is_drawn_where_its_curve_is(drawn):
    _, axes = drawn
    level = {name: [ys[0] for xs, ys in lines_of(a) if xs == [0, 1]] for name, a in axes.items()}
    assert level == {'loss_itc': [], 'accuracy': [0.125], 'entropy': [np.log(64)]}
    accuracy = {line.get_label(): line for line in axes['accuracy'].lines}
    dotted = next(line for line in axes['accuracy'].lines if line.get_linestyle() == ':')
    assert tuple(dotted.get_color()) == tuple(accuracy['mlm_accuracy'].get_color())


def test_legends_stand_beside_the_curves_and_on_the_sheet(drawn):
    figure, axes = drawn
    assert axes['loss_itc'].get_legend() is None
    taken = [a.bbox for a in axes.values()]
    for name in ('accuracy', 'entropy'):
        legend = axes[name].get_legend().get_window_extent()
        assert not any(legend.overlaps(other) for other in taken)
        assert figure.bbox.x0 < legend.x0 and legend.x1 < figure.bbox.x1
        taken.append(legend)


def test_nothing_to_draw_is_an_error(tmp_path):
    path = write(tmp_path / 'metrics.jsonl', {'step': 1, 'lr': 0.1})
    with pytest.raises(ValueError, match='train/loss'):
        curves.draw_curves(path)
