"""What may be called semantic, on figures that are set by hand."""

import math

import pytest

from semmim_jax.evaluators import pattern_verdict, patterns


def row(coding, reading='told', **changes):
    """A row of a head that is above its deciding controls, if it is not changed."""
    strong = coding == 'head'
    figures = {
        'object_nmi': 0.5 if strong else 0.3,
        'object_nmi_shuffled': 0.1,
        'object_nmi_other_image': 0.2,
        'in_image_nmi': 0.4 if strong else 0.2,
        'in_image_nmi_shuffled': 0.1,
        'in_image_nmi_other_image': 0.1,
        'cross_image': 0.5 if strong else 0.3,
        'cross_image_chance': 0.1,
    }
    counts = {'codes': 9, 'codes_wanted': 9, 'modal_share': 0.5}
    errors = {} if strong else {'errors': dict.fromkeys(pattern_verdict.DECIDING_FIGURES, 0.01)}
    fields = figures | counts | errors | changes
    return patterns.PatternRow(reading=reading, coding=coding, **fields)


HEAD = patterns.HEADS['told']
DECIDING = ' and '.join(patterns.CONTROLS[name] for name in pattern_verdict.DECIDING_CONTROLS)


def rows_with(**controls):
    """A head and its deciding controls, both beaten unless changed by name."""
    names = pattern_verdict.DECIDING_CONTROLS
    return [row('head'), *(row(name, **controls.get(name, {})) for name in names)]


def test_semantic_only_above_both_controls_on_every_figure():
    assert pattern_verdict.verdict(rows_with()) == [f'{HEAD}: semantic: beats {DECIDING}.']
    assert pattern_verdict.is_semantic(rows_with(), 'told')


@pytest.mark.parametrize('control', pattern_verdict.DECIDING_CONTROLS)
@pytest.mark.parametrize(
    ('change', 'figure'),
    [
        (
            {'object_nmi_shuffled': -0.2},
            'object NMI minus shuffled (-0.100 ± 0.010)',
        ),
        (
            {'object_nmi': 0.45, 'object_nmi_other_image': 0.1, 'object_nmi_shuffled': 0.1},
            "object NMI minus other image's (-0.050 ± 0.010)",
        ),
        # A tie is not a win.
        (
            {'object_nmi_other_image': 0.0},
            "object NMI minus other image's (+0.000 ± 0.010)",
        ),
        (
            {'in_image_nmi_shuffled': -0.2},
            'in-image NMI minus shuffled (-0.100 ± 0.010)',
        ),
    ],
)
def test_what_is_not_beaten_is_named_with_its_difference(control, change, figure):
    rows = rows_with(**{control: change})
    assert not pattern_verdict.is_semantic(rows, 'told')
    assert pattern_verdict.verdict(rows) == [
        f'{HEAD}: not called semantic: does not beat {patterns.CONTROLS[control]}.',
        f'{HEAD}: {patterns.CONTROLS[control]} is not beaten on {figure}.',
    ]


@pytest.mark.parametrize(
    'change', [{'in_image_nmi': 0.9, 'in_image_nmi_shuffled': 0.8}, {'cross_image': 0.9}]
)
def test_what_both_nulls_explain_and_agreement_across_images_do_not_decide(change):
    assert pattern_verdict.is_semantic(rows_with(cls_broadcast=change), 'told')


def test_a_control_beaten_by_less_than_two_standard_errors_is_named():
    name = 'in_image_nmi_gain_shuffled'  # 0.3 against 0.1: 0.2 more
    for error, is_close in ((0.09, False), (0.11, True), (math.nan, False)):
        errors = dict.fromkeys(pattern_verdict.DECIDING_FIGURES, 0.01) | {name: error}
        rows = rows_with(feature_kmeans={'errors': errors})
        assert pattern_verdict.is_semantic(rows, 'told')
        first, *others = pattern_verdict.verdict(rows)
        assert first == f'{HEAD}: semantic: beats {DECIDING}.'
        assert others == is_close * [
            f'{HEAD}: k-means on patch features is beaten by less than two standard errors on '
            'in-image NMI minus shuffled (+0.200 ± 0.110).'
        ]


def test_the_readings_are_judged_apart():
    untold = [row(r.coding, 'untold') for r in rows_with()]
    untold[2] = row('feature_kmeans', 'untold', object_nmi=0.9)
    rows = [*rows_with(), *untold]
    judged = {x: pattern_verdict.is_semantic(rows, x) for x in patterns.HEADS}
    assert judged == {'told': True, 'untold': False}
    sentences = pattern_verdict.verdict(rows)
    assert sentences[0] == f'{HEAD}: semantic: beats {DECIDING}.'
    assert all(sentence.startswith(patterns.HEADS['untold']) for sentence in sentences[1:])


def test_differences_stand_beside_their_errors_for_people_and_as_json():
    rows = rows_with(cls_broadcast={'errors': {'object_nmi_gain_shuffled': 0.0321}})
    header, _, head, cls, kmeans, *_ = pattern_verdict.format_differences(rows).splitlines()
    assert header.split('  ')[0] == 'head minus control' and head == HEAD
    cells = [' '.join(line.split()) for line in (cls, kmeans)]
    # By hand: (0.5 - 0.1) - (0.3 - 0.1), (0.5 - 0.2) - (0.3 - 0.2), (0.4 - 0.1) - (0.2 - 0.1).
    assert cells[0] == 'CLS code on every patch +0.200 ± 0.032 +0.200 ± unknown +0.200 ± unknown'
    assert cells[1] == 'k-means on patch features' + ' +0.200 ± 0.010' * 3
    actual = pattern_verdict.to_dict(rows)['differences']
    assert list(actual) == ['told/cls_broadcast', 'told/feature_kmeans']
    assert actual['told/cls_broadcast']['object_nmi_gain_shuffled'] == {
        'mean': pytest.approx(0.2),
        'error': 0.0321,
    }
    assert actual['told/cls_broadcast']['object_nmi_gain_other_image']['error'] is None


def test_other_controls_are_named_and_do_not_decide():
    rows = [*rows_with(), row('pixel_kmeans', object_nmi=0.9)]
    first, second = pattern_verdict.verdict(rows)
    assert 'semantic: beats' in first and patterns.CONTROLS['pixel_kmeans'] in second


def test_missing_controls_and_other_heads():
    assert 'not measured' in pattern_verdict.verdict(rows_with()[:2])[0]
    assert not pattern_verdict.is_semantic(rows_with()[:2], 'told')
    foreign = row('feature_kmeans', 'untold', object_nmi=0.9)
    assert len(pattern_verdict.verdict([*rows_with(), foreign])) == 1


def test_what_cannot_be_known_is_named():
    rows = [row('head', object_nmi_other_image=math.nan), *rows_with()[1:]]
    assert pattern_verdict.verdict(rows) == [
        f"{HEAD}: not called semantic: not known here: object NMI minus other image's."
    ]
    assert not pattern_verdict.is_semantic(rows, 'told')
