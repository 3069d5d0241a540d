"""FLOPs of the cheaper full-size steps: docs/method.md section 6.4, on shapes alone."""

import pytest

from benchmarks import step_flops

DROP, HALF = {'task.mim.drop_masked': True}, {'task.mim.sample_share': 0.5}
SINGLE = {'task.views': 'single', 'task.weights.local': 0.0}
MASKED = {'task.views': 'masked', 'task.weights.local': 0.0}
SHARED = SINGLE | {'task.shared_towers': True}
COST = {  # changes of the default form; GFLOP per sample of it, and of the literal form
    'dropped': (DROP, 423, 445),
    'half': (HALF, 396, 408),
    'single': (SINGLE, 462, 497),
    'masked': (MASKED, 323, 358),
    'masked, dropped': (MASKED | DROP, 253, 292),
    'shared': (SHARED, 412, 447),
    'fast': (SHARED | DROP | HALF, 313, 331),
}


@pytest.mark.parametrize('name', COST)
def test_arithmetic_is_the_pages_table(name):
    changes, *totals = COST[name]
    for variant, total in zip(('base', 'base-literal'), totals, strict=True):
        config = step_flops.changed(step_flops.full_size({}, variant=variant), changes)
        cost = step_flops.training_total(step_flops.arithmetic(config))
        assert cost == pytest.approx(total * 1e9, abs=0.5e9)


def test_the_fast_variant_is_these_options():
    config = step_flops.full_size({}, variant='fast')
    cost = step_flops.training_total(step_flops.arithmetic(config))
    assert cost == pytest.approx(COST['fast'][1] * 1e9, abs=0.5e9)
    assert not config.data.match_views


def test_dropping_saves_what_shorter_layers_save():
    """By hand: 12 layers and the patches of 154 instead of 256 patches, less the predictor."""
    d, full, kept, dropped = 768, 257, 155, 102
    layer = lambda n: 2 * (12 * n * d**2 + 2 * n**2 * d)
    saved = 12 * (layer(full) - layer(kept)) + 2 * dropped * d * d
    queries, context = 2 * 10 * dropped * d**2, 2 * 2 * kept * d**2
    predictor = queries + context + 2 * 2 * dropped * kept * d
    cost = [
        step_flops.training_total(
            step_flops.arithmetic(step_flops.changed(step_flops.full_size({}), changes))
        )
        for changes in ({}, DROP)
    ]
    assert cost[0] - cost[1] == pytest.approx(3 * (saved - predictor), rel=1e-9)


@pytest.mark.parametrize('name', ['masked, dropped', 'fast'])
def test_the_step_spends_what_the_arithmetic_says(name):
    config = step_flops.changed(step_flops.full_size({}), COST[name][0])
    config = step_flops.changed(config, {'train.batch_size': step_flops.BATCH})
    passes, held = step_flops.arithmetic(config), step_flops.count(config)
    for part, (forward, backward) in held.items():
        student = sum(p.student for p in passes if p.part == part)
        teacher = sum(p.teacher for p in passes if p.part == part)
        slack = 0.15e9 + 0.01 * student  # as in test_full_size.py
        assert forward == pytest.approx(student + teacher, abs=slack), part
        assert backward == pytest.approx(2 * student, abs=slack), part
