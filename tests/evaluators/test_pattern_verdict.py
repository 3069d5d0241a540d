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
    return patterns.PatternRow(reading=reading, coding=coding, **(figures | counts | changes))


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
        ({'object_nmi': 0.6}, "object NMI minus other image's (0.300 against 0.400)"),
        # A tie is not a win.
        (
            {'object_nmi_other_image': 0.0},
            "object NMI minus other image's (0.300 against 0.300)",
        ),
        (
            {
                'in_image_nmi': 0.45,
                'in_image_nmi_shuffled': 0.3,
                'in_image_nmi_other_image': 0.3,
            },
            'in-image NMI (0.400 against 0.450)',
        ),
        (
            {'in_image_nmi_shuffled': -0.2},
            'in-image NMI minus shuffled (0.300 against 0.400)',
        ),
        (
            {'in_image_nmi_other_image': -0.2},
            "in-image NMI minus other image's (0.300 against 0.400)",
        ),
        ({'cross_image': 0.7}, 'same label across images minus chance (0.400 against 0.600)'),
    ],
)
def test_what_is_not_beaten_is_named(control, change, figure):
    rows = rows_with(**{control: change})
    assert not pattern_verdict.is_semantic(rows, 'told')
    assert pattern_verdict.verdict(rows) == [
        f'{HEAD}: not called semantic: does not beat {patterns.CONTROLS[control]}.',
        f'{HEAD}: {patterns.CONTROLS[control]} is not beaten on {figure}.',
    ]


def test_object_nmi_above_shuffled_patches_does_not_decide():
    """A random code per image has as much of it as the CLS code: it cannot speak against codes."""
    rows = rows_with(cls_broadcast={'object_nmi_shuffled': -0.9})
    assert rows[1].object_nmi_gain_shuffled > rows[0].object_nmi_gain_shuffled
    assert pattern_verdict.is_semantic(rows, 'told')


def test_a_control_that_cannot_be_known_is_at_chance():
    unknown = {'cls_broadcast': {'cross_image': math.nan}}
    assert pattern_verdict.is_semantic(rows_with(**unknown), 'told')
    at_chance = [row('head', cross_image=0.1), *rows_with(**unknown)[1:]]
    assert list(pattern_verdict.unbeaten(at_chance, 'told')['cls_broadcast']) == [
        'cross_image_gain'
    ]


def test_other_controls_are_named_and_do_not_decide():
    rows = [*rows_with(), row('pixel_kmeans', object_nmi=0.9)]
    first, second = pattern_verdict.verdict(rows)
    assert 'semantic: beats' in first and patterns.CONTROLS['pixel_kmeans'] in second


def test_margin_missing_controls_and_other_heads():
    assert 'not called semantic' in pattern_verdict.verdict(rows_with(), margin=0.25)[0]
    assert not pattern_verdict.is_semantic(rows_with(), 'told', margin=0.25)
    assert 'not measured' in pattern_verdict.verdict(rows_with()[:2])[0]
    assert not pattern_verdict.is_semantic(rows_with()[:2], 'told')
    foreign = row('feature_kmeans', 'untold', object_nmi=0.9)
    assert len(pattern_verdict.verdict([*rows_with(), foreign])) == 1


def test_what_cannot_be_known_is_named():
    rows = [row('head', cross_image=math.nan), *rows_with()[1:]]
    assert pattern_verdict.verdict(rows) == [
        f'{HEAD}: not called semantic: not known here: same label across images minus chance.'
    ]
    assert not pattern_verdict.is_semantic(rows, 'told')
