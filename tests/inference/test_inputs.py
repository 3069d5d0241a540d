"""What is taken as an image and a text, by the JAX model and by the PyTorch module alike."""

import numpy as np
import PIL.Image
import pytest

from semmim_jax.inference import inputs

torch_model = pytest.importorskip('semmim_jax.conversion.torch_model')
torch = pytest.importorskip('torch')

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]
# Alpha of nothing, of half and of all, over white: 255, (c * 128 + 255 * 127) / 255 rounded, c.
ALPHA = np.zeros((1, 3, 4), np.uint8)
ALPHA[0, :, :3], ALPHA[0, :, 3] = (0, 100, 255), (0, 128, 255)
OVER_WHITE = np.array([[[255, 255, 255], [127, 177, 255], [0, 100, 255]]], np.uint8)


def in_jax(image):
    return inputs.as_pixels(image, decoder='opencv', max_pixels=10**6)


def in_torch(image):
    return torch_model.as_pixels(image).numpy()


BOTH = pytest.mark.parametrize('as_pixels', [in_jax, in_torch])
TAKEN = {
    'RGB': (RGB, RGB),
    'grey': (GREY, np.stack([GREY] * 3, -1)),
    'grey with a channel': (GREY[..., None], np.stack([GREY] * 3, -1)),
    'alpha': (ALPHA, OVER_WHITE),
    'a tensor': (torch.from_numpy(RGB), RGB),
    'PIL': (PIL.Image.fromarray(RGB), RGB),
    'PIL grey': (PIL.Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
    'PIL alpha': (PIL.Image.fromarray(ALPHA), OVER_WHITE),
    'PIL palette': (PIL.Image.fromarray(GREY // 2).convert('P'), np.stack([GREY // 2] * 3, -1)),
    'PIL bits': (PIL.Image.new('1', (2, 1), 1), np.full((1, 2, 3), 255, np.uint8)),
}


@BOTH
@pytest.mark.parametrize('name', TAKEN)
def test_taken(as_pixels, name):
    image, expected = TAKEN[name]
    pixels = as_pixels(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@BOTH
def test_files_and_pil_images_are_upright(as_pixels, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned right by the camera: to be shown, a quarter to the right
    PIL.Image.fromarray(RGB).save(tmp_path / 'turned.png', exif=exif)
    for image in (tmp_path / 'turned.png', PIL.Image.open(tmp_path / 'turned.png')):
        np.testing.assert_array_equal(as_pixels(image), np.rot90(RGB, -1))


@BOTH
def test_alpha_of_a_file_lies_on_white_as_in_training(as_pixels, tmp_path):
    PIL.Image.fromarray(ALPHA).save(tmp_path / 'alpha.png')
    np.testing.assert_array_equal(as_pixels(tmp_path / 'alpha.png'), OVER_WHITE)


REFUSED = {
    'floats': (RGB / 255, 'uint8, 0 to 255, not float64; of floats from 0 to 1 give'),
    'integers': (RGB.astype(np.int64), 'uint8, 0 to 255, not int64'),
    'bool': (GREY > 9, 'uint8, 0 to 255, not bool'),
    'float tensor': (torch.zeros(4, 4, 3), 'uint8, 0 to 255, not float32'),
    'channels first': (RGB.transpose(2, 0, 1), r'not \[3, 5, 7\]; channels go last'),
    'two channels': (RGB[..., :2], r'not \[5, 7, 2\]; channels go last'),
    'one axis': (GREY[0], r'not \[7\]'),
    'no pixels': (RGB[:0], r'not \[0, 7, 3\]'),
    'PIL floats': (PIL.Image.fromarray(GREY.astype(np.float32)), 'not of the PIL mode F'),
    'PIL 16 bits': (PIL.Image.fromarray(GREY.astype(np.uint16)), 'not of the PIL mode I;16'),
    'nothing': (None, 'a path, a PIL image or an array of uint8, not NoneType'),
    'a list': (RGB.tolist(), 'a path, a PIL image or an array of uint8, not list'),
    'no file': ('absent.png', 'absent.png: No such file or directory'),
    'no image': (__file__, 'test_inputs.py: not a JPEG, PNG, WEBP, BMP image'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_in_the_same_sentence(name):
    image, said = REFUSED[name]
    with pytest.raises(ValueError, match=said) as ours:
        in_jax(image)
    with pytest.raises(ValueError) as theirs:
        in_torch(image)
    assert str(ours.value) == str(theirs.value) and '\n' not in str(ours.value)


@pytest.mark.parametrize('module', [inputs, torch_model])
def test_one_image_or_several(module):
    batch = np.stack([RGB, RGB])
    counts = {
        1: ['a.png', PIL.Image.new('L', (1, 1)), GREY, RGB, [RGB]],
        2: [batch, [RGB, 'a.png']],
    }
    for count, examples in counts.items():
        for images in examples:
            assert len(module.as_images(images)) == count
    assert len(module.as_images(torch.zeros(2, 4, 4, 3, dtype=torch.uint8))) == 2


@pytest.mark.parametrize('module', [inputs, torch_model])
def test_one_text_or_several(module):
    assert module.as_texts('a dog') == ['a dog']
    assert module.as_texts(('a dog', '')) == ['a dog', '']
    for texts, said in (
        (None, 'texts are a string or a list of strings, not NoneType'),
        (b'a dog', 'texts are a string or a list of strings, not bytes'),
        (['a dog', 3], 'text 1 is 3, not a string'),
    ):
        with pytest.raises(ValueError, match=said):
            module.as_texts(texts)
