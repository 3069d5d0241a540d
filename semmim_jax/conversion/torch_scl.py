"""SCL in PyTorch. Copy this file, `semmim_torch_towers.py` (BERT's layers),
`semmim_torch_inputs.py` (WordPiece, images) and `semmim_torch_bytes.py` (RoBERTa's tokeniser); they
need torch alone.

    model = SCL.load('folder')                           # of `semmim_jax.convert to-torch`
    images = ['dog.jpg', 'cat.jpg']                      # or PIL images, uint8 [h, w, 3], ...

    model.encode_image(images).feature @ model.encode_text('a dog').feature.T
    model.match(images, ['a dog', 'a cat'])              # how well each pair fits, logits
    model.classify(images, ['what is it?', 'is it a cat?'])  # label -> probability, of each

A run has what its task trains; a call that it cannot answer is a ValueError that names the tasks
that can. Where texts are cut by a rule that these files lack, `encode_text` takes ids alone.

Modules and parameters have the names of the authors' code (arXiv 2211.13437). Letters in shapes:
b batch, f frames, n patches of a frame, t tokens, d width, e embedding, c classes, i images of a
group.
"""

import json
import pathlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from semmim_jax.conversion.torch_bytes import BytePairs
from semmim_jax.conversion.torch_inputs import (
    IdsAlone,
    WordPiece,
    as_groups,
    as_images,
    as_texts,
    ids_of,
    pixels_of,
    read_safetensors,
)
from semmim_jax.conversion.torch_towers import BertLayer, BertModel, attend, unit

TEXT, IMAGE = 0, 1  # rows of the table of types; the second of two images has row 2


class Encoded(NamedTuple):
    """An image, a video or a text after its tower and its bridge."""

    feature: Tensor | None  # [b, e], unit length: for similarity; None without contrast heads
    tokens: Tensor  # [b, f + f n, d], the CLS of all frames first, or [b, t, d]
    mask: Tensor | None = None  # [b, t] bool, False at padding; None for images
    frames: int = 1


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class FrameAttention(nn.Module):
    """The patches of a frame see that frame, its CLS all frames: [b, f, n + 1, d] -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.chunk(3, -1)  # [b, f, n + 1, d]
        frames, (b, f) = [part.flatten(0, 1) for part in (query, key, value)], x.shape[:2]
        patches = attend(frames[0][:, 1:], frames[1], frames[2], heads=self.heads)
        cls = attend(query[:, :, 0], key.flatten(1, 2), value.flatten(1, 2), heads=self.heads)
        return self.out_proj(torch.cat([cls[:, :, None], patches.unflatten(0, (b, f))], 2))


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer layer of CLIP."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        width, epsilon = sizes['width'], sizes['epsilon']
        self.ln_1 = nn.LayerNorm(width, epsilon)
        self.attn = FrameAttention(width, sizes['heads'])
        self.ln_2 = nn.LayerNorm(width, epsilon)
        self.mlp = nn.Sequential()
        self.mlp.add_module('c_fc', nn.Linear(width, sizes['mlp_width']))
        self.mlp.add_module('gelu', QuickGELU())
        self.mlp.add_module('c_proj', nn.Linear(sizes['mlp_width'], width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """CLIP's layers."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        blocks = (ResidualAttentionBlock(sizes) for _ in range(sizes['depth']))
        self.resblocks = nn.Sequential(*blocks)


class VisualTransformer(nn.Module):
    """Normalised frames [b, f, 3, s, s] -> CLS of all frames, then patches, [b, f + f n, d].

    An image is a video of one frame.
    """

    def __init__(self, sizes: dict[str, Any], visual_mask: bool):
        super().__init__()
        width, patch, epsilon = sizes['width'], sizes['patch_size'], sizes['epsilon']
        patches = (sizes['image_size'] // patch) ** 2
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(patches + 1, width))
        if sizes['frames']:
            self.temporal_embed = nn.Parameter(torch.zeros(1, sizes['frames'], width))
        if visual_mask:  # for masked patches, in training
            self.visual_mask_token = nn.Parameter(torch.zeros(1, width))
        self.ln_pre = nn.LayerNorm(width, epsilon)
        self.transformer = Transformer(sizes)
        self.ln_post = nn.LayerNorm(width, epsilon)

    def forward(self, frames: Tensor) -> Tensor:
        b, f = frames.shape[:2]
        patches = self.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # [b f, n, d]
        cls = self.class_embedding.expand(len(patches), 1, -1)
        x = torch.cat([cls, patches], 1) + self.positional_embedding
        x = x.unflatten(0, (b, f))
        if hasattr(self, 'temporal_embed'):
            x = x + self.temporal_embed[:, :f, None]
        x = self.transformer.resblocks(self.ln_pre(x))
        return self.ln_post(torch.cat([x[:, :, 0], x[:, :, 1:].flatten(1, 2)], 1))


class VisionTransformer(nn.Module):
    """Holds `visual`, as the authors' CLIP does."""

    def __init__(self, sizes: dict[str, Any], visual_mask: bool):
        super().__init__()
        self.visual = VisualTransformer(sizes, visual_mask)


class Pooler(nn.Module):
    """Linear and tanh of [b, d]."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x).tanh()


class ITMHead(nn.Module):
    """Joint features [b, 2 d] -> logits [b, 2]."""

    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Linear(width, 2)


class MLMTransform(nn.Module):
    """Dense, GELU, LayerNorm."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(functional.gelu(self.dense(x)))


class MLMHead(nn.Module):
    """[..., d] -> logits [..., v], by word vectors of its own."""

    def __init__(self, width: int, words: int, epsilon: float):
        super().__init__()
        self.transform = MLMTransform(width, epsilon)
        self.decoder = nn.Linear(width, words, bias=False)
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x)) + self.bias


def label_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Dense, LayerNorm, GELU, dense."""
    layers = nn.Linear(inputs, hidden), nn.LayerNorm(hidden, 1e-5)
    return nn.Sequential(*layers, nn.GELU(), nn.Linear(hidden, outputs))


class SCL(nn.Module):
    """The model; `config` is that of config.json. Use `SCL.load`."""

    def __init__(self, config: dict[str, Any], tokenizer: WordPiece | BytePairs | IdsAlone):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.task = config['task']
        self.parts = config['parts']  # names of the modules below that the run has
        text, epsilon = config['text'], config['fusion_epsilon']
        width, embed_dim, depth = text['width'], config['embed_dim'], config['fusion_depth']
        fusion = text | {'epsilon': epsilon}
        self.text_transformer = BertModel(text, text['depth'], text['depth'])
        self.vision_transformer = VisionTransformer(config['image'], config['visual_mask'])
        self.token_type_embeddings = nn.Embedding(config['types'], width)
        self.cross_modal_text_transform = nn.Linear(width, width)
        self.cross_modal_image_transform = nn.Linear(config['image']['width'], width)
        self.cross_modal_text_layers = nn.ModuleList(BertLayer(fusion, True) for _ in range(depth))
        self.cross_modal_image_layers = nn.ModuleList(BertLayer(fusion, True) for _ in range(depth))
        if 'cross_modal_text_pooler' in self.parts:
            self.cross_modal_text_pooler = Pooler(width)
            self.cross_modal_image_pooler = Pooler(width)
        if 'mlm_score' in self.parts:
            self.mlm_score = MLMHead(width, text['vocab_size'], epsilon)
        if 'itm_score' in self.parts:
            self.itm_score = ITMHead(2 * width)
        if 'rank_output' in self.parts:
            self.rank_output = nn.Linear(2 * width, 1)
        if 'vision_proj' in self.parts:
            self.vision_proj = label_head(width, width, embed_dim)
            self.language_proj = label_head(width, width, embed_dim)
        self.classifier = next((name for name in self.parts if name.endswith('_classifier')), None)
        if self.classifier:
            inputs, labels = 2 * width * self.task['images'], len(self.task['labels'])
            setattr(self, self.classifier, label_head(inputs, self.task['hidden'], labels))
        if 'cl_temp' in self.parts:
            self.cl_temp = nn.Parameter(torch.zeros(()))

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> 'SCL':
        """The model of a folder, for evaluation; ValueError or RuntimeError if anything misfits."""
        folder = pathlib.Path(folder)
        names = 'config.json', 'preprocessor_config.json'
        config, preprocessor = (json.loads((folder / name).read_text('utf-8')) for name in names)
        config['pixel_mean'] = preprocessor['image_mean']
        config['pixel_std'] = preprocessor['image_std']
        tokens = config['tokens']
        tokenizer: WordPiece | BytePairs | IdsAlone
        if tokens['rule'] == 'bytes':
            options = {name: value for name, value in tokens.items() if name != 'rule'}
            tokenizer = BytePairs(folder / 'tokenizer.json', **options)
        elif tokens['rule'] == 'ids':
            tokenizer = IdsAlone(tokens['pad'], str(folder / 'tokenizer.json'))
        else:
            vocab = (folder / 'vocab.txt').read_text('utf-8').split('\n')[:-1]  # all lines end
            if len(vocab) != config['text']['vocab_size']:
                raise ValueError(f'{folder}/vocab.txt: {len(vocab)} tokens, not those of the model')
            tokenizer = WordPiece(vocab, **tokens)
        with torch.device('meta'):  # shapes only: the weights come from the file
            model = cls(config, tokenizer)
        model.load_state_dict(read_safetensors(f'{folder}/model.safetensors'), assign=True)
        return model.train(False)

    def encode_image(self, images: Any) -> Encoded:
        """Encodes an image, several, or what is encoded."""
        if isinstance(images, Encoded):
            return images
        like = self.token_type_embeddings.weight
        return self.encode_frames(pixels_of(images, self.config, like)[:, None])

    def encode_frames(self, frames: Tensor) -> Encoded:
        """Encodes videos, normalised frames [b, f, 3, s, s]."""
        f = frames.shape[1]
        tokens = self.cross_modal_image_transform(self.vision_transformer.visual(frames))
        feature = None
        if 'vision_proj' in self.parts:
            feature = unit(self.vision_proj(tokens[:, :f].mean(1)))
        return Encoded(feature, tokens, frames=f)

    def encode_text(self, texts: str | list[str] | Tensor | Encoded) -> Encoded:
        """Encodes a text, several, or their ids [b, t]; a text needs words."""
        if isinstance(texts, Encoded):
            return texts
        ids = texts if isinstance(texts, Tensor) else ids_of(texts, self.tokenizer)
        return self._encode_ids(ids)

    def _encode_ids(self, ids: Tensor) -> Encoded:
        ids = ids.to(self.token_type_embeddings.weight.device)
        mask = ids != self.tokenizer.pad
        tower = self.text_transformer
        tokens = self.cross_modal_text_transform(tower.encoder(tower.embeddings(ids), mask=mask))
        feature = unit(self.language_proj(tokens[:, 0])) if 'language_proj' in self.parts else None
        return Encoded(feature, tokens, mask)

    def fuse(
        self,
        images: Any,
        texts: str | list[str] | Tensor | Encoded,
        types: list[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both streams after fusion, of pairs: [b, t, d] and [b, f + f n, d].

        Args:
          images, texts: as of `encode_image` and `encode_text`, equally many.
          types: row of the table of types for each image; the first's by default.
        """
        image, text = self.encode_image(images), self.encode_text(texts)
        kinds = self.token_type_embeddings.weight
        x, mask = text.tokens + kinds[TEXT], text.mask
        y = image.tokens + (kinds[IMAGE] if types is None else kinds[types][:, None])
        layers = zip(self.cross_modal_text_layers, self.cross_modal_image_layers, strict=True)
        for text_layer, image_layer in layers:
            x, y = (
                text_layer(x, mask, y, None, False),
                image_layer(y, None, x, mask, False),
            )
        return x, y

    def joint(
        self,
        images: Any,
        texts: str | list[str] | Tensor | Encoded,
        types: list[int] | None = None,
    ) -> Tensor:
        """Joint features [b, 2 d] of pairs: the pooled CLS of the text, and of the image."""
        self._need(
            'cross_modal_text_pooler' in self.parts, tasks='completion with itm, rank, classify'
        )
        image = self.encode_image(images)
        x, y = self.fuse(image, texts, types)
        image_cls = y[:, : image.frames].mean(1)
        pooled = self.cross_modal_text_pooler(x[:, 0]), self.cross_modal_image_pooler(image_cls)
        return torch.cat(pooled, -1)

    def match(self, images: Any, texts: str | list[str] | Tensor | Encoded) -> Tensor:
        """Logits of pairs [b]: the larger, the better they fit.

        Of pre-training the logit of ITM's class 1 less that of class 0; of a fine-tuned ranking its
        score, which is compared with those of other texts alone.
        """
        known = {'itm_score', 'rank_output'} & set(self.parts)
        self._need(bool(known), tasks='completion, rank')
        joint = self.joint(images, texts)
        if 'rank_output' in known:
            return self.rank_output(joint)[:, 0]
        logits = self.itm_score.fc(joint)
        return logits[:, 1] - logits[:, 0]

    def predict_words(self, images: Any, ids: Tensor) -> Tensor:
        """MLM logits [b, t, v] at all of ids [b, t], some of them the mask's."""
        self._need('mlm_score' in self.parts, tasks='completion')
        return self.mlm_score(self.fuse(images, ids)[0])

    @torch.no_grad()
    def classify(self, images: Any, texts: str | list[str] | Tensor) -> list[dict[str, float]]:
        """Probability of each label of the run for image i, or group of images, and text i."""
        logits = self.label_logits(images, texts).float()
        shares = logits.sigmoid() if self.task['loss'] == 'sigmoid' else logits.softmax(-1)
        return [dict(zip(self.task['labels'], values, strict=True)) for values in shares.tolist()]

    def label_logits(self, images: Any, texts: str | list[str] | Tensor) -> Tensor:
        """Logits [b, c] of the run's labels; `images` are groups where the task looks at several.

        The text meets each image of a group in a pass of its own.
        """
        self._need(self.classifier is not None, tasks='classify')
        images, count = as_images(images), self.task['images']
        if isinstance(texts, Tensor):
            ids = texts
        else:
            texts = as_texts(texts)
            ids = self.tokenizer.prompts(texts, self.tokenizer.max_tokens)
        if len(images) != len(ids):
            raise ValueError(f'{len(images)} images, but {len(ids)} questions')
        images = as_groups(images, count)
        types = list(range(IMAGE, IMAGE + count)) * len(ids)
        joint = self.joint(images, self._encode_ids(ids.repeat_interleave(count, 0)), types)
        logits: Tensor = getattr(self, str(self.classifier))(joint.reshape(len(ids), -1))
        return logits

    def _need(self, available: bool, *, tasks: str) -> None:
        """Raises ValueError if something is not available; `tasks` are those that have it."""
        if not available:
            raise ValueError(
                f'a run of the task {self.task["name"]!r} cannot do this; tasks that can: {tasks}'
            )
