"""SemMIM in PyTorch: this one file, torch and the standard library. Copy it where you need it.

    model = SemMIM.load('folder')                            # of `semmim_jax.convert to-torch`
    images = model.encode_image(['dog.jpg', 'cat.jpg'])      # or PIL images, uint8 [h, w, 3], ...
    images.feature @ model.encode_text('a dog').feature.T
    model.match(images, ['a dog', 'a cat']).softmax(-1)[:, 1]  # how well each pair fits
    model.caption(images)
    model.patterns(images)[1].argmax(-1)                     # code of each patch

An image is a path (which needs Pillow; alpha is dropped, as in training), a PIL image (upright by
EXIF), or an array or tensor of uint8: RGB [h, w, 3], grey [h, w] or [h, w, 1], RGB and alpha
[h, w, 4]. Alpha of arrays and PIL images is laid over white. One, a list, or a batch [b, h, w, c].
Modules and parameters have ALBEF's names (2107.07651); what ALBEF lacks has names of its own.
Letters in shapes: b batch, n patches, t tokens, d width, e embedding, k encodings, v vocabulary.
"""

import json
import pathlib
import re
import unicodedata
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# BERT's Chinese characters, with the one gap that the `tokenizers` library has.
CJK = '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f'
CJK += '\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f'
GAP = re.compile('(?<=[{0}]) (?=[{0}])'.format(CJK + '\u3001-\u30ff\uff01-\uff9f'))
CJK = re.compile(f'[{CJK}]')
INVISIBLE = '[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f'
INVISIBLE = re.compile(INVISIBLE + '\ufeff\ufff9-\ufffd]')
ACCENTS = re.compile('[\u0300-\u036f]')
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
NOTHING = 'nothing to do: no images, or no texts'
NOT_UINT8 = (
    'the levels of an image are uint8, 0 to 255, not {}; '
    'of floats from 0 to 1 give (255 * x).round() as uint8'
)
FILES = ('config.json', 'preprocessor_config.json', 'vocab.txt')
parts = lambda **modules: nn.ModuleDict(modules)  # modules by name


class Encoded(NamedTuple):
    """An image or a text after its tower."""

    feature: Tensor  # [b, e], unit length: for similarity
    tokens: Tensor  # [b, n + 1, d] or [b, t, d], CLS first, as the fusion encoder reads them
    mask: Tensor | None = None  # [b, t] bool, False at padding; None for images


def attend(query, key, value, heads: int, mask=None, causal: bool = False) -> Tensor:
    """Multi-head attention of [b, t, d] over [b, s, d]; `mask` [b, s] is False at padding."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mask = None if mask is None else mask[:, None, None, :]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def unit(x: Tensor) -> Tensor:
    """x, in float32 at least, scaled to unit length along the last axis."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * x.square().sum(-1, keepdim=True).clamp(min=1e-12).rsqrt()


class VisionBlock(nn.Module):
    """Pre-norm transformer layer: [b, n, d] -> [b, n, d]."""

    def __init__(self, c: dict[str, Any]):
        super().__init__()
        self.heads, self.clip = c['heads'], c['variant'] == 'clip'
        width, hidden = c['width'], c['mlp_width']
        self.norm1, self.norm2 = (nn.LayerNorm(width, c['epsilon']) for _ in range(2))
        self.attn = parts(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.mlp = parts(fc1=nn.Linear(width, hidden), fc2=nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attn.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.attn.proj(attend(*qkv, self.heads))
        y = self.mlp.fc1(self.norm2(x))
        return x + self.mlp.fc2(y * torch.sigmoid(1.702 * y) if self.clip else F.gelu(y))


class VisionTransformer(nn.Module):
    """ViT, plain (ALBEF's) or CLIP's, maybe with DeiT's distillation token, which is left out of
    what it returns: normalised images [b, 3, s, s] -> [b, n + 1, d], CLS first."""

    def __init__(self, c: dict[str, Any]):
        super().__init__()
        clip, width, patch = c['variant'] == 'clip', c['width'], c['patch_size']
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if c['distilled'] else None
        tokens = (c['image_size'] // patch) ** 2 + 1 + c['distilled']
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = parts(proj=nn.Conv2d(3, width, patch, stride=patch, bias=not clip))
        self.norm_pre = nn.LayerNorm(width, c['epsilon']) if clip else nn.Identity()
        self.blocks = nn.Sequential(*(VisionBlock(c) for _ in range(c['depth'])))
        self.norm = nn.LayerNorm(width, c['epsilon'])

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)  # [b, n, d]
        first = [token for token in (self.cls_token, self.dist_token) if token is not None]
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in first), x], 1) + self.pos_embed
        x = self.norm(self.blocks(self.norm_pre(x)))
        return torch.cat([x[:, :1], x[:, len(first) :]], 1)


class BertLayer(nn.Module):
    """Post-norm transformer layer, with cross-attention if `cross`."""

    def __init__(self, c: dict[str, Any], cross: bool):
        super().__init__()
        self.heads, width, hidden = c['heads'], c['width'], c['mlp_width']
        linear, norm = lambda: nn.Linear(width, width), lambda: nn.LayerNorm(width, c['epsilon'])
        for name in ('attention', 'crossattention')[: 1 + cross]:
            into = nn.ModuleDict({key: linear() for key in ('query', 'key', 'value')})
            out = parts(dense=linear(), LayerNorm=norm())
            self.add_module(name, nn.ModuleDict({'self': into, 'output': out}))
        self.intermediate = parts(dense=nn.Linear(width, hidden))
        self.output = parts(dense=nn.Linear(hidden, width), LayerNorm=norm())

    def forward(self, x, mask=None, context=None, context_mask=None, causal=False) -> Tensor:
        """x [b, t, d] and its mask [b, t], context [b, s, d] and its mask [b, s]."""
        x = self._attended(self.attention, x, x, mask, causal)
        if context is not None:
            x = self._attended(self.crossattention, x, context, context_mask, False)
        return self.output.LayerNorm(x + self.output.dense(F.gelu(self.intermediate.dense(x))))

    def _attended(self, part, x, context, mask, causal: bool) -> Tensor:
        query, key, value = part.self.query(x), part.self.key(context), part.self.value(context)
        out = part.output.dense(attend(query, key, value, self.heads, mask, causal))
        return part.output.LayerNorm(x + out)


class Bert(nn.Module):
    """ALBEF's text encoder or decoder: `bert` has embeddings and layers, those from `cross_from` on
    with cross-attention; `cls.predictions`, if `head`, is tied to the word embeddings."""

    def __init__(self, c: dict[str, Any], depth: int, cross_from: int, head: bool):
        super().__init__()
        norm, self.offset = lambda: nn.LayerNorm(c['width'], c['epsilon']), c['position_offset']
        rows = {'word': c['vocab_size'], 'position': c['max_positions'], 'token_type': c['types']}
        tables = {f'{name}_embeddings': nn.Embedding(n, c['width']) for name, n in rows.items()}
        layers = nn.ModuleList(BertLayer(c, index >= cross_from) for index in range(depth))
        embeddings = parts(**tables, LayerNorm=norm())
        self.bert = parts(embeddings=embeddings, encoder=parts(layer=layers))
        if head:
            transform = parts(dense=nn.Linear(c['width'], c['width']), LayerNorm=norm())
            self.cls = parts(predictions=parts(transform=transform))
            self.cls.predictions.bias = nn.Parameter(torch.zeros(c['vocab_size']))

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [b, t] -> [b, t, d]."""
        tables = self.bert.embeddings
        position = tables.position_embeddings.weight[self.offset :][: ids.shape[1]]
        x = tables.word_embeddings(ids) + position + tables.token_type_embeddings.weight[0]
        return tables.LayerNorm(x)

    def layers(self, x: Tensor, start: int, stop: int | None, *options) -> Tensor:
        """Runs a range of layers; options as in `BertLayer`."""
        for layer in self.bert.encoder.layer[start:stop]:
            x = layer(x, *options)
        return x

    def predict(self, x: Tensor) -> Tensor:
        """[..., d] -> logits [..., v]."""
        head = self.cls.predictions
        x = head.transform.LayerNorm(F.gelu(head.transform.dense(x)))
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, head.bias)


class EncodingHead(nn.Module):
    """Tokens [..., d] -> cosines [..., k] with the directions of the encoding space."""

    def __init__(self, width: int, hidden: int, bottleneck: int, codes: int):
        super().__init__()
        self.hidden1, self.hidden2 = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.bottleneck_out = nn.Linear(hidden, bottleneck)
        self.directions = nn.Parameter(torch.zeros(codes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.hidden2(F.gelu(self.hidden1(x))))
        return unit(self.bottleneck_out(x)) @ unit(self.directions).T


class WordPiece:
    """WordPiece after ALBEF's cleaning of captions; fields as in config.data. `rule` for letters:
    'bert', lower-case and without marks, or lower-case and 'keep_accents' or 'strip_accents'."""

    def __init__(
        self,
        vocab: list[str],
        *,
        max_tokens: int,
        max_words: int,
        end_token: bool,
        rule: str = 'bert',
    ):
        self.rule, self.longest = rule, 100 if rule == 'bert' else 1000  # characters of a word
        self.vocab, self.ids = vocab, {token: i for i, token in enumerate(vocab)}
        self.max_tokens, self.max_words, self.end_token = max_tokens, max_words, end_token
        special = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
        self.pad, self.unk, self.cls, self.sep = (self.ids[token] for token in special)

    def __call__(self, texts: list[str]) -> Tensor:
        """[CLS] words [SEP] [PAD]... of each: [b, t]; without [SEP] if not `end_token`."""
        end = [self.sep] * self.end_token
        rows = [[self.cls, *self.encode(x)[: self.max_tokens - 1 - len(end)], *end] for x in texts]
        return torch.tensor([row + [self.pad] * (self.max_tokens - len(row)) for row in rows])

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: cleaned, by the rule for letters, in words, marks and pieces."""
        table = str.maketrans({**dict.fromkeys(',.\'!?"()*#:;~', ''), '-': ' ', '/': ' '})
        text = text.lower().translate(table).replace('<person>', 'person')
        text, kind = ' '.join(text.split()[: self.max_words]), unicodedata.category
        if self.rule == 'bert':
            text = ''.join(' ' if c in '\t\n\r' or kind(c)[0] == 'Z' else c for c in text)
            text = ''.join(c for c in text if kind(c) not in ('Cc', 'Cf', 'Co') and c != '\ufffd')
            text = unicodedata.normalize('NFD', CJK.sub(r' \g<0> ', text))
            text = ''.join(c.lower() for c in text if kind(c) != 'Mn')
        else:
            text = INVISIBLE.sub('', text)
            if self.rule == 'strip_accents':
                text = ACCENTS.sub('', unicodedata.normalize('NFD', text))
            text = ''.join(c.lower() for c in CJK.sub(r' \g<0> ', text))
            text = unicodedata.normalize('NFC', text)
        # All of ASCII's marks, though Unicode counts some as symbols ($, +, <).
        is_mark = lambda c: kind(c)[0] == 'P' or ('!' <= c <= '~' and not c.isalnum())
        words = ''.join(f' {c} ' if is_mark(c) else c for c in text).split()
        return [i for word in words for i in self.pieces(word)]

    def pieces(self, word: str) -> list[int]:
        """Ids of the longest pieces from the left; [UNK] if they do not cover the word."""
        found, start = [], 0
        while start < len(word) <= self.longest:
            sharp, stops = '##' if start else '', range(len(word), start, -1)
            if not (stop := next((s for s in stops if sharp + word[start:s] in self.ids), 0)):
                return [self.unk]
            found, start = [*found, self.ids[sharp + word[start:stop]]], stop
        return found or [self.unk]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, without [PAD], [CLS] and [SEP]."""
        shown = [self.vocab[i] for i in ids if i not in (self.pad, self.cls, self.sep)]
        return GAP.sub('', ' '.join(shown).replace(' ##', ''))


class SemMIM(nn.Module):
    """The model; `config` is that of config.json. Use `SemMIM.load`."""

    def __init__(self, config: dict[str, Any], tokenizer: WordPiece):
        super().__init__()
        self.config, self.tokenizer, text = config, tokenizer, config['text']
        self.depth = text['depth']  # of the text encoder; the fusion encoder's layers follow
        layers = self.depth + config['fusion_depth']
        self.visual_encoder = VisionTransformer(config['image'])
        self.text_encoder = Bert(text, layers, self.depth, config['mlm_head'])
        if config['decoder_depth']:
            self.text_decoder = Bert(text, config['decoder_depth'], 0, True)
        for name, sizes in config['linear'].items():
            self.add_module(name, nn.Linear(*sizes))
        for name in config['encoding_heads']:
            self.add_module(name, EncodingHead(text['width'], **config['encoding']))
        if 'bridge' in config['linear']:
            self.bridge_norm = nn.LayerNorm(text['width'], 1e-12)
        self.mask_token = nn.Parameter(torch.zeros(config['image']['width']))
        self.temp = nn.Parameter(torch.zeros(()))

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> 'SemMIM':
        """The model of a folder, for evaluation; ValueError or RuntimeError if anything misfits."""
        config, pixels, vocab = (pathlib.Path(folder, x).read_text('utf-8') for x in FILES)
        config, pixels, vocab = json.loads(config), json.loads(pixels), vocab.split('\n')[:-1]
        config['pixels'] = pixels['image_mean'], pixels['image_std']
        if len(vocab) != config['text']['vocab_size']:
            raise ValueError(f'{folder}/vocab.txt: {len(vocab)} tokens, not those of the model')
        with torch.device('meta'):  # shapes only: the weights come from the file
            model = cls(config, WordPiece(vocab, **config['tokens']))
        model.load_state_dict(read_safetensors(f'{folder}/model.safetensors'), assign=True)
        return model.train(False)

    def preprocess(self, image: Any) -> Tensor:
        """Resizes an image to uint8 [s, s, 3]: averages to shrink, bicubic to grow."""
        image, size = as_pixels(image), self.config['image']['image_size']
        if image.shape[:2] == (size, size):
            return image
        image = image.cpu()
        rows, columns = (area_weights(old, min(old, size)) for old in image.shape[:2])
        x = (rows @ image.permute(2, 0, 1).float() @ columns.T).round()  # [3, h, w]
        x = F.interpolate(x[None], (size, size), mode='bicubic', align_corners=False)[0]
        return x.round().clamp(0, 255).byte().permute(1, 2, 0)

    def encode_image(self, images: Any) -> Encoded:
        """Encodes an image, several, or what is encoded. (Normalised pixels [b, 3, s, s], to
        differentiate by, go into `visual_encoder`.)"""
        if isinstance(images, Encoded):
            return images
        found = [self.preprocess(image).to(self.temp.device) for image in as_images(images)]
        if not found:
            raise ValueError(NOTHING)
        mean, std = (torch.tensor(x).to(self.temp.device) * 255 for x in self.config['pixels'])
        pixels = (torch.stack(found) - mean) / std
        tokens = self.visual_encoder(pixels.permute(0, 3, 1, 2).to(self.temp))
        feature = unit(self.vision_proj(tokens[:, 0]))
        bridged = 'bridge' in self.config['linear']
        return Encoded(feature, self.bridge_norm(self.bridge(tokens)) if bridged else tokens)

    def encode_text(self, texts: str | list[str] | Tensor | Encoded) -> Encoded:
        """Encodes a text, several, or their ids [b, t]; a text needs words."""
        if isinstance(texts, Encoded):
            return texts
        if not isinstance(texts, Tensor):
            if not (texts := as_texts(texts)):
                raise ValueError(NOTHING)
            for number, text in enumerate(texts):
                if not self.tokenizer.encode(text):
                    raise ValueError(f'text {number} is {text!r:.60}, which has no words')
        ids = texts if isinstance(texts, Tensor) else self.tokenizer(texts)
        mask = (ids := ids.to(self.temp.device)) != self.tokenizer.pad
        tokens = self.text_encoder.layers(self.text_encoder.embed(ids), 0, self.depth, mask)
        return Encoded(unit(self.text_proj(tokens[:, 0])), tokens, mask)

    def fuse(self, images: Any, texts: str | list[str] | Tensor | Encoded) -> Tensor:
        """The texts' tokens [b, t, d] after they have read the images; takes what is encoded."""
        image, text = self.encode_image(images), self.encode_text(texts)
        return self.text_encoder.layers(text.tokens, self.depth, None, text.mask, image.tokens)

    def match(self, images: Any, texts: str | list[str] | Tensor | Encoded) -> Tensor:
        """ITM logits [b, 2] of pairs; class 1 is a match."""
        return self.itm_head(self.fuse(images, texts)[:, 0])

    def predict_words(self, images: Any, ids: Tensor) -> Tensor:
        """MLM logits [b, t, v] at all of ids [b, t], some of them [MASK]."""
        return self.text_encoder.predict(self.fuse(images, ids))

    def patterns(self, images: Any, texts=None) -> tuple[Tensor, Tensor]:
        """Distributions over the encoding space: of CLS [b, k], and of patches [b, n, k], which
        have read the texts, if there are any, as they did in training."""
        c, tokens = self.config['patterns'], self.encode_image(images).tokens
        told, inject = tokens, c['inject'] if texts is not None else 'none'
        if inject == 'cross_attention':
            text, stop = self.encode_text(texts), self.depth + c['layers']
            told = self.text_encoder.layers(tokens, self.depth, stop, None, text.tokens, text.mask)
        elif inject == 'global':
            told = tokens + self.text_injection(self.encode_text(texts).tokens[:, :1])
        cls, patches = self.encoding_head(tokens[:, 0]), self.get_submodule(c['head'])(told[:, 1:])
        return (cls / c['temperature']).softmax(-1), (patches / c['temperature']).softmax(-1)

    @torch.no_grad()
    def caption(self, images: Any, prompt: str = '') -> list[str]:
        """Captions by the likeliest next word. In training a caption's beginning is read, its rest
        written: `prompt` takes the beginning's place; '' is [CLS] alone, one of no words."""
        if not isinstance(prompt, str):
            raise ValueError(f'the prompt is a string, not {type(prompt).__name__}')
        image, tokenizer, decoder = self.encode_image(images), self.tokenizer, self.text_decoder
        words = tokenizer.encode(prompt)[: tokenizer.max_tokens - 2]
        prefix = torch.tensor([[tokenizer.cls, *words]] * len(image.tokens)).to(self.temp.device)
        context = torch.cat([image.tokens, self.fuse(image, prefix)], 1)
        ids, ended = prefix[:, :1], prefix[:, 0] != tokenizer.cls
        while ids.shape[1] <= tokenizer.max_tokens and not ended.all():
            x = decoder.layers(decoder.embed(ids), 0, None, None, context, None, True)
            word = decoder.predict(x[:, -1]).argmax(-1).masked_fill(ended, tokenizer.pad)
            ids, ended = torch.cat([ids, word[:, None]], 1), ended | (word == tokenizer.sep)
        return [tokenizer.decode([*words, *row]) for row in ids.tolist()]


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


def as_images(images: Any) -> Any:
    """The images one by one; one image, an array [h, w, ...] too, is a list of one."""
    batch = isinstance(images, list | tuple) or len(getattr(images, 'shape', ())) > 3
    return images if batch else [images]


def as_pixels(image: Any) -> Tensor:
    """uint8 [h, w, 3] of one image, see the head of this file; ValueError for anything else."""
    if isinstance(image, str | pathlib.Path):
        image = read_image(image)
    if hasattr(image, 'getexif'):  # PIL's
        image = pil_levels(image)
    if not hasattr(image, '__array__'):
        name = type(image).__name__
        raise ValueError(f'an image is a path, a PIL image or an array of uint8, not {name}')
    if (dtype := str(image.dtype).removeprefix('torch.')) != 'uint8':
        raise ValueError(NOT_UINT8.format(dtype))
    levels = torch.as_tensor(image)
    shape, levels = list(levels.shape), levels[..., None] if levels.ndim == 2 else levels
    if levels.ndim != 3 or levels.shape[-1] not in (1, 3, 4) or not levels.numel():
        raise ValueError(
            f'an image is [h, w, 3], [h, w], [h, w, 1] or [h, w, 4], not {shape}; channels go last'
        )
    if levels.shape[-1] == 4:
        colour, alpha = levels[..., :3].int(), levels[..., 3:].int()
        levels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).byte()
    return levels.expand(*levels.shape[:2], 3)


def read_image(path: str | pathlib.Path) -> Any:
    """The RGB PIL image of a file."""
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
    return image if image.mode[0] in 'IF' else upright(image).convert('RGB')


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


def area_weights(old: int, new: int) -> Tensor:
    """[new, old]: the share of each old pixel in each new one, new <= old."""
    edges, pixels = torch.arange(new + 1.0)[:, None] * old / new, torch.arange(old)
    covered = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
    return covered.clamp(0) * new / old


def read_safetensors(path: str | pathlib.Path) -> dict[str, Tensor]:
    """The float32 tensors of a file; ValueError unless header and data fit each other."""
    data, found, end = bytearray(pathlib.Path(path).read_bytes()), {}, 0
    first = 8 + int.from_bytes(data[:8], 'little')
    try:
        header = {k: x for k, x in json.loads(data[8:first]).items() if k != '__metadata__'}
        flat = torch.frombuffer(data, dtype=torch.float32, offset=first)
        for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
            start, end = end, end + 4 * torch.Size(entry['shape']).numel()
            if entry['dtype'] != 'F32' or entry['data_offsets'] != [start, end]:
                raise ValueError(f'{name} is not float32, or not where it should be')
            found[name] = flat[start // 4 : end // 4].view(entry['shape'])
        if 4 * len(flat) != end:
            raise ValueError(f'{4 * len(flat)} bytes of data instead of {end}')
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f'{path}: damaged, or not safetensors: {error}') from None
    return found
