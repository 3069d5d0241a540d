"""What goes into SemMIM in PyTorch: words as ids, pixels as tensors, weights from a file.

Needs torch and the standard library; paths of images need Pillow. `semmim_torch.py` imports it.

An image is a path, a PIL image (upright by EXIF), or an array or tensor of uint8: RGB [h, w, 3],
grey [h, w] or [h, w, 1], RGB and alpha [h, w, 4]. Alpha is laid over white, as in training. Images
are one, a list, or a batch [b, h, w, c].
"""

import json
import pathlib
import re
import unicodedata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# BERT's Chinese characters, with the one gap that the `tokenizers` library has.
_CHINESE = (
    '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f'
    '\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f'
)
# Written without spaces: Chinese and Japanese, their punctuation, full-width letters.
_UNSPACED = _CHINESE + '\u3001-\u30ff\uff01-\uff9f'
CHINESE = re.compile(f'[{_CHINESE}]')
UNSPACED_GAP = re.compile(f'(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])')
# Control characters but white space, soft hyphens, signs of direction.
INVISIBLE = re.compile(
    '[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f'
    '\ufeff\ufff9-\ufffd]'
)
ACCENTS = re.compile('[\u0300-\u036f]')  # of decomposed letters
DELETED = ',.\'!?"()*#:;~'  # by ALBEF's cleaning of captions
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
NOTHING = 'nothing to do: no images, or no texts'
NOT_UINT8 = (
    'the levels of an image are uint8, 0 to 255, not {}; '
    'of floats from 0 to 1 give (255 * x).round() as uint8'
)


class WordPiece:
    """The tokeniser: ALBEF's cleaning of captions, then WordPiece.

    Args:
      vocab: tokens in the order of ids.
      max_tokens: of a caption, [CLS] and [SEP] included.
      max_words: of a caption; what follows is cut off.
      end_token: whether [SEP] follows the words of what is read; in ALBEF it does not.
      rule: for letters. 'bert': lower-case, without marks. 'keep_accents': lower-case.
        'strip_accents': lower-case, without Latin, Greek and Cyrillic accents.
      clean: whether captions are cleaned; without, all of their words and marks are read.
    """

    def __init__(
        self,
        vocab: list[str],
        *,
        max_tokens: int,
        max_words: int,
        end_token: bool,
        rule: str = 'bert',
        clean: bool = True,
    ):
        self.vocab = vocab
        self.ids = {token: number for number, token in enumerate(vocab)}
        self.max_tokens = max_tokens
        self.max_words = max_words
        self.end_token = end_token
        self.rule = rule
        self.clean = clean
        self.longest_word = 100 if rule == 'bert' else 1000  # characters; a longer one is [UNK]
        self.pad = self.ids['[PAD]']
        self.unk = self.ids['[UNK]']
        self.cls = self.ids['[CLS]']
        self.sep = self.ids['[SEP]']
        self.mask = self.ids['[MASK]']

    def __call__(self, captions: list[str]) -> Tensor:
        """Ids [b, t]: `[CLS] words [SEP] [PAD]...`; a long caption loses its end."""
        end = [self.sep] if self.end_token else []
        room = self.max_tokens - 1 - len(end)
        sequences = []
        for caption in captions:
            words = self.encode(caption, max_words=self.max_words)
            sequences.append([self.cls, *words[:room], *end])
        return self._padded(sequences, self.max_tokens)

    def prompts(self, prompts: list[str], max_tokens: int) -> Tensor:
        """Ids [b, t] of prompts: `[CLS] words [SEP] [PAD]...`; a long one loses its beginning."""
        end = [self.sep] if self.end_token else []
        room = max_tokens - 1 - len(end)
        sequences = []
        for prompt in prompts:
            words = self.encode(prompt)
            sequences.append([self.cls, *words[max(0, len(words) - room) :], *end])
        return self._padded(sequences, max_tokens)

    def answers(self, answers: list[str], max_tokens: int) -> Tensor:
        """Ids [a, t] of answers as the decoder writes them: `words [SEP] [PAD]...`."""
        sequences = [[*self.encode(answer)[: max_tokens - 1], self.sep] for answer in answers]
        return self._padded(sequences, max_tokens)

    def _padded(self, sequences: list[list[int]], length: int) -> Tensor:
        return torch.tensor(
            [sequence + [self.pad] * (length - len(sequence)) for sequence in sequences]
        )

    def encode(self, text: str, *, max_words: int | None = None) -> list[int]:
        """Ids of the words alone, at most `max_words` words; None: of all."""
        text = clean_caption(text, max_words) if self.clean else text
        text = lower_bert(text) if self.rule == 'bert' else self._lower_composed(text)
        text = ''.join(f' {c} ' if is_mark(c) else c for c in text)
        return [number for word in text.split() for number in self.pieces(word)]

    def _lower_composed(self, text: str) -> str:
        """Lower-case; a letter and its accent are one character."""
        text = INVISIBLE.sub('', text)
        if self.rule == 'strip_accents':
            text = ACCENTS.sub('', unicodedata.normalize('NFD', text))
        text = CHINESE.sub(r' \g<0> ', text)
        text = ''.join(c.lower() for c in text)
        return unicodedata.normalize('NFC', text)

    def pieces(self, word: str) -> list[int]:
        """Ids of the longest pieces from the left; [UNK] if they do not cover the word."""
        if not 0 < len(word) <= self.longest_word:
            return [self.unk]
        pieces = []
        start = 0
        while start < len(word):
            stop = len(word)
            prefix = '##' if start else ''
            while stop > start and prefix + word[start:stop] not in self.ids:
                stop -= 1
            if stop == start:
                return [self.unk]
            pieces.append(self.ids[prefix + word[start:stop]])
            start = stop
        return pieces

    def decode(self, ids: list[int]) -> str:
        """Text of ids, without [PAD], [CLS] and [SEP]."""
        hidden = (self.pad, self.cls, self.sep)
        text = ' '.join(self.vocab[number] for number in ids if number not in hidden)
        return UNSPACED_GAP.sub('', text.replace(' ##', ''))


class IdsAlone:
    """Stands for a tokeniser that is not here; `path` is its file, of the `tokenizers` library."""

    max_tokens = 0

    def __init__(self, pad: int, path: str):
        self.pad = pad
        self.path = path

    def __call__(self, captions: list[str]) -> Tensor:
        """A ValueError: there are no words here."""
        raise ValueError(f'give ids [b, t], padded with {self.pad}: texts are cut by {self.path}')

    def prompts(self, prompts: list[str], max_tokens: int) -> Tensor:
        """A ValueError, as for captions."""
        return self(prompts)


def clean_caption(text: str, max_words: int | None) -> str:
    """ALBEF's cleaning: lower-case, no punctuation, at most `max_words` words."""
    table = str.maketrans({**dict.fromkeys(DELETED, ''), '-': ' ', '/': ' '})
    text = text.lower().translate(table).replace('<person>', 'person')
    return ' '.join(text.split()[:max_words])


def lower_bert(text: str) -> str:
    """BERT's rule for letters: lower-case, without marks; Chinese characters apart."""
    kind = unicodedata.category
    text = ''.join(' ' if c in '\t\n\r' or kind(c)[0] == 'Z' else c for c in text)
    text = ''.join(c for c in text if kind(c) not in ('Cc', 'Cf', 'Co') and c != '\ufffd')
    text = CHINESE.sub(r' \g<0> ', text)
    text = unicodedata.normalize('NFD', text)
    return ''.join(c.lower() for c in text if kind(c) != 'Mn')


def is_mark(character: str) -> bool:
    """Whether a character is a word of its own: punctuation, and all of ASCII's marks, of which
    Unicode counts some as symbols ($, +, <)."""
    ascii_mark = '!' <= character <= '~' and not character.isalnum()
    return ascii_mark or unicodedata.category(character)[0] == 'P'


def as_texts(texts: str | list[str]) -> list[str]:
    """The texts; a string is one. ValueError for anything else."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list | tuple):
        raise ValueError(f'texts are a string or a list of strings, not {type(texts).__name__}')
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f'text {number} is {text!r:.60}, not a string')
    return list(texts)


def ids_of(texts: str | list[str], tokenizer: Any) -> Tensor:
    """Ids [b, t] of a text or several; ValueError for none, and for a text without words.

    The tokeniser is `WordPiece`, `IdsAlone`, or one with the calls of the former.
    """
    texts = as_texts(texts)
    if not texts:
        raise ValueError(NOTHING)
    if hasattr(tokenizer, 'encode'):
        for number, text in enumerate(texts):
            if not tokenizer.encode(text):
                raise ValueError(f'text {number} is {text!r:.60}, which has no words')
    ids: Tensor = tokenizer(texts)
    return ids


def as_groups(images: Any, count: int) -> Any:
    """The images one by one, of groups of `count`; ValueError for groups of another size."""
    if count == 1:
        return images
    for group in images:
        is_group = isinstance(group, list | tuple) or hasattr(group, '__array__')
        if not is_group or len(group) != count:
            raise ValueError(
                f'this run looks at {count} images at once: give a list of groups of {count}'
            )
    return [image for group in images for image in group]


def pixels_of(images: Any, config: dict[str, Any], like: Tensor) -> Tensor:
    """Normalised pixels [b, 3, s, s] of an image or several, on the device of `like`, in its type.

    `config` has the side and the statistics of pixels.
    """
    size = config['image']['image_size']
    resized = [resize(as_pixels(image), size) for image in as_images(images)]
    if not resized:
        raise ValueError(NOTHING)
    mean, std = (
        255 * torch.tensor(config[name], device=like.device) for name in ('pixel_mean', 'pixel_std')
    )
    pixels = torch.stack([levels.to(like.device) for levels in resized])  # [b, s, s, 3]
    return ((pixels - mean) / std).permute(0, 3, 1, 2).to(like.dtype)


def as_images(images: Any) -> Any:
    """The images one by one; one image, an array [h, w, ...] too, is a list of one."""
    if isinstance(images, list | tuple) or len(getattr(images, 'shape', ())) > 3:
        return images
    return [images]


def as_pixels(image: Any) -> Tensor:
    """uint8 [h, w, 3] of one image, see the head of this file; ValueError for anything else."""
    if isinstance(image, str | pathlib.Path):
        image = read_image(image)
    if hasattr(image, 'getexif'):  # PIL's
        image = pil_levels(image)
    if not hasattr(image, '__array__'):
        name = type(image).__name__
        raise ValueError(f'an image is a path, a PIL image or an array of uint8, not {name}')
    dtype = str(image.dtype).removeprefix('torch.')
    if dtype != 'uint8':
        raise ValueError(NOT_UINT8.format(dtype))
    levels = torch.as_tensor(image)
    shape = list(levels.shape)
    if levels.ndim == 2:
        levels = levels[..., None]
    if levels.ndim != 3 or levels.shape[-1] not in (1, 3, 4) or not levels.numel():
        raise ValueError(
            f'an image is [h, w, 3], [h, w], [h, w, 1] or [h, w, 4], not {shape}; channels go last'
        )
    if levels.shape[-1] == 4:
        colour, alpha = levels[..., :3].int(), levels[..., 3:].int()
        levels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).byte()
    return levels.expand(*levels.shape[:2], 3)


def read_image(path: str | pathlib.Path) -> Any:
    """The PIL image of a file."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ValueError(f'{path}: a path needs Pillow (pip install pillow)') from None
    try:
        image = Image.open(path, formats=FORMATS)
        image.load()
    except UnidentifiedImageError:
        raise ValueError(f'{path}: not a {", ".join(FORMATS)} image') from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'{path}: {getattr(error, "strerror", None) or error}') from None
    return image


def pil_levels(image: Any) -> Tensor:
    """uint8 [h, w, 3], or [h, w, 4] with alpha, of a PIL image."""
    if image.mode[0] in 'IF':
        raise ValueError(NOT_UINT8.format(f'of the PIL mode {image.mode}'))
    image = upright(image).convert('RGBA' if image.has_transparency_data else 'RGB')
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return levels.view(image.height, image.width, -1)


def upright(image: Any) -> Any:
    """A PIL image as its EXIF orientation wants it."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def resize(image: Tensor, size: int) -> Tensor:
    """uint8 [h, w, 3] -> [size, size, 3]: averages to shrink, bicubic to grow."""
    height, width, _ = image.shape
    if height == width == size:
        return image
    x = image.cpu().permute(2, 0, 1).float()  # [3, h, w]
    rows = area_weights(height, min(height, size))
    columns = area_weights(width, min(width, size))
    x = (rows @ x @ columns.T).round()
    x = F.interpolate(x[None], (size, size), mode='bicubic', align_corners=False)[0]
    return x.round().clamp(0, 255).byte().permute(1, 2, 0)


def area_weights(old: int, new: int) -> Tensor:
    """[new, old]: the share of each old pixel in each new one, new <= old."""
    edges = torch.arange(new + 1.0)[:, None] * old / new
    pixels = torch.arange(old)
    covered = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
    return covered.clamp(0) * new / old


def read_safetensors(path: str | pathlib.Path) -> dict[str, Tensor]:
    """The float32 tensors of a file; ValueError unless header and data fit each other."""
    data = bytearray(pathlib.Path(path).read_bytes())
    start_of_data = 8 + int.from_bytes(data[:8], 'little')
    tensors = {}
    try:
        header = json.loads(data[8:start_of_data])
        header.pop('__metadata__', None)
        flat = torch.frombuffer(data, dtype=torch.float32, offset=start_of_data)
        end = 0  # of the tensor before, in bytes
        for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
            start, end = end, end + 4 * torch.Size(entry['shape']).numel()
            if entry['dtype'] != 'F32' or entry['data_offsets'] != [start, end]:
                raise ValueError(f'{name} is not float32, or not where it should be')
            tensors[name] = flat[start // 4 : end // 4].view(entry['shape'])
        if 4 * len(flat) != end:
            raise ValueError(f'{4 * len(flat)} bytes of data instead of {end}')
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f'{path}: damaged, or not safetensors: {error}') from None
    return tensors
