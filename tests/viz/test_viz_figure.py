import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.viz import figure, masks

WORDS = st.lists(st.text('abcdefgh$_', min_size=1, max_size=30), max_size=20)


@given(WORDS, st.floats(0.5, 3))
@settings(max_examples=40, deadline=None)
def test_wrapped_lines_fit_and_lose_nothing(words, width):
    lines = figure.wrap(' '.join(words), width=width, size=8)
    assert all(figure.text_width(line, 8) <= width for line in lines)
    assert ''.join(lines).replace(' ', '') == ''.join(words)


def test_wrap_ends_in_an_ellipsis_within_the_width():
    lines = figure.wrap('many words ' * 30, width=1.5, size=8, max_lines=2)
    assert len(lines) == 2 and lines[1].endswith('\u2026')
    assert figure.text_width(lines[1], 8) <= 1.5
    assert figure.wrap('  ', width=1, size=8) == []


def sheet():
    return figure.Sheet(width=3, body_height=1, title='T', note='n', attribution='Artwork: X')


def test_panels_lie_where_they_are_put():
    it = sheet()
    axes = it.panel(left=0.5, top=it.top, width=1, height=0.5)
    box = axes.get_position()
    assert box.x0 * it.width == pytest.approx(0.5)
    assert (1 - box.y1) * it.height == pytest.approx(it.top)
    assert box.height * it.height == pytest.approx(0.5)


def test_array_has_the_size_of_the_sheet_and_the_attribution_is_drawn():
    it, bare = sheet(), figure.Sheet(width=3, body_height=1, title='T', note='n', attribution='')
    pixels = figure.to_array(it.figure)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert pixels.shape[1] == 3 * figure.DPI
    assert pixels.shape[0] > figure.to_array(bare.figure).shape[0]
    foot = int((figure.MARGIN + figure.text_height(1, figure.SMALL_SIZE)) * figure.DPI)
    assert pixels[-foot:].min() < 200  # ink in the footer


def test_save_lowers_the_resolution_to_fit_and_wants_png(tmp_path):
    it = sheet()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    it.picture(noise, left=0.3, top=it.top, width=1, height=1)
    large = figure.save(it.figure, tmp_path / 'large.png')
    small = figure.save(it.figure, tmp_path / 'small.png', max_bytes=30_000)
    assert small.stat().st_size <= 30_000 < large.stat().st_size
    with pytest.raises(ValueError, match='png'):
        figure.save(it.figure, tmp_path / 'x.jpg')


def mask_input(images=3):
    rng = np.random.default_rng(0)
    return {
        'images': rng.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8),
        'captions': ['a large sun left of $5 and $6'] * images,
        'relevance': rng.normal(size=(images, 16)),
        'mask': rng.random((images, 16)) < 0.4,
    }


def test_masks_are_drawn_with_and_without_labels(tmp_path):
    data = mask_input()
    labels = np.tile(np.arange(16) % 3, (3, 1))
    shown = masks.draw_masks(**data, labels=labels, attribution='Artwork: X')
    assert shown.dtype == np.uint8
    path = masks.draw_masks(**data, columns=1, path=tmp_path / 'masks.png')
    assert path.stat().st_size < 1_500_000
    flat = data | {'relevance': np.zeros((3, 16)), 'mask': np.zeros((3, 16), bool)}
    masks.draw_masks(**flat, labels=labels)


def test_bad_mask_input_is_named():
    data = mask_input()
    with pytest.raises(ValueError, match='captions: 2 for 3'):
        masks.draw_masks(**(data | {'captions': ['a', 'b']}))
    with pytest.raises(ValueError, match='mask'):
        masks.draw_masks(**(data | {'mask': data['mask'][:2]}))


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    masks.draw_masks(**mask_input(1))
    assert dict(matplotlib.rcParams) == before
