"""SCL, one step in plain torch: towers, both streams, five losses, for images and for videos.

Every loss runs passes of its own over all positions, as the public code does. Parameters have the
names of the authors' checkpoints; the frames' attention is written frame by frame.
"""

import math

import torch
from golden_store import Draw, check_close, write
from golden_towers import padding_mask
from torch.nn import functional as F
from transformers import RobertaConfig, RobertaModel

D, HEADS, MLP, WORDS, FEATURES = 16, 2, 32, 40, 6
SIZE, PATCH, PLACES = 16, 4, 4  # pixels of a side, of a patch; rows of the temporal table
TEXT_LAYERS, IMAGE_LAYERS, FUSION_LAYERS = 2, 2, 3
PAD, MASK = 1, WORDS - 1
MEAN, STD = 0.5, 0.25
TAU = 0.1
WEIGHTS = dict(itm=1.0, mlm=1.0, contrast=0.5, completion=1.0, local=0.2)
# What the test takes gradients by: something of each part.
GRADIENTS = (
    'text_transformer.embeddings.word_embeddings.weight',
    'text_transformer.encoder.layer.0.attention.self.value.weight',
    'vision_transformer.visual.conv1.weight',
    'vision_transformer.visual.temporal_embed',
    'vision_transformer.visual.visual_mask_token',
    'vision_transformer.visual.transformer.resblocks.1.attn.out_proj.weight',
    'cross_modal_image_transform.weight',
    'token_type_embeddings.weight',
    'cross_modal_text_layers.0.crossattention.self.key.weight',
    'cross_modal_image_layers.2.output.dense.weight',
    'cross_modal_image_pooler.dense.weight',
    'mlm_score.decoder.weight',
    'itm_score.fc.weight',
    'language_proj.0.weight',
    'cl_temp',
)


def shapes():
    """Name -> shape of every parameter."""
    linear = lambda name, out, into: {f'{name}.weight': (out, into), f'{name}.bias': (out,)}
    norm = lambda name, size=D: {f'{name}.weight': (size,), f'{name}.bias': (size,)}

    def bert(name, crossed):
        kinds = ('attention', 'crossattention') if crossed else ('attention',)
        parts = {}
        for kind in kinds:
            for part in ('query', 'key', 'value'):
                parts |= linear(f'{name}.{kind}.self.{part}', D, D)
            parts |= linear(f'{name}.{kind}.output.dense', D, D)
            parts |= norm(f'{name}.{kind}.output.LayerNorm')
        parts |= linear(f'{name}.intermediate.dense', MLP, D)
        return parts | linear(f'{name}.output.dense', D, MLP) | norm(f'{name}.output.LayerNorm')

    text, visual = 'text_transformer.', 'vision_transformer.visual.'
    found = {
        f'{text}embeddings.word_embeddings.weight': (WORDS, D),
        f'{text}embeddings.position_embeddings.weight': (12, D),
        f'{text}embeddings.token_type_embeddings.weight': (1, D),
        **norm(f'{text}embeddings.LayerNorm'),
        f'{visual}conv1.weight': (D, 3, PATCH, PATCH),
        f'{visual}class_embedding': (D,),
        f'{visual}positional_embedding': ((SIZE // PATCH) ** 2 + 1, D),
        f'{visual}temporal_embed': (1, PLACES, D),
        f'{visual}visual_mask_token': (1, D),
        **norm(f'{visual}ln_pre'),
        **norm(f'{visual}ln_post'),
        'token_type_embeddings.weight': (2, D),
        'cl_temp': (),
    }
    for i in range(TEXT_LAYERS):
        found |= bert(f'{text}encoder.layer.{i}', crossed=False)
    for i in range(IMAGE_LAYERS):
        name = f'{visual}transformer.resblocks.{i}'
        found |= {f'{name}.attn.in_proj_weight': (3 * D, D), f'{name}.attn.in_proj_bias': (3 * D,)}
        found |= linear(f'{name}.attn.out_proj', D, D) | norm(f'{name}.ln_1')
        found |= norm(f'{name}.ln_2') | linear(f'{name}.mlp.c_fc', MLP, D)
        found |= linear(f'{name}.mlp.c_proj', D, MLP)
    for side in ('text', 'image'):
        found |= linear(f'cross_modal_{side}_transform', D, D)
        found |= linear(f'cross_modal_{side}_pooler.dense', D, D)
        for i in range(FUSION_LAYERS):
            found |= bert(f'cross_modal_{side}_layers.{i}', crossed=True)
    found |= linear('mlm_score.transform.dense', D, D) | norm('mlm_score.transform.LayerNorm')
    found |= {'mlm_score.decoder.weight': (WORDS, D), 'mlm_score.bias': (WORDS,)}
    found |= linear('itm_score.fc', 2, 2 * D)
    for side in ('vision', 'language'):
        found |= linear(f'{side}_proj.0', D, D) | norm(f'{side}_proj.1')
        found |= linear(f'{side}_proj.3', FEATURES, D)
    return found


def parameters(draw):
    """Random values at which no softmax is near uniform and no norm is the identity."""
    values = {}
    for name, shape in shapes().items():
        gain = name.endswith(('LayerNorm.weight', '_1.weight', '_2.weight', 'proj.1.weight'))
        if gain or name.endswith(('ln_pre.weight', 'ln_post.weight')):
            values[name] = draw.normal(*shape, mean=1.0, std=0.2)
        elif name == 'cl_temp':
            values[name] = draw.normal(1, mean=0.1, std=0.01)[0]
        else:
            values[name] = draw.normal(*shape, std=0.2 if len(shape) == 1 else 0.3)
    return values


class Reference:
    """The model on a dict of parameters."""

    def __init__(self, params):
        self.p = params

    def linear(self, name, x):
        return F.linear(x, self.p[f'{name}.weight'], self.p[f'{name}.bias'])

    def norm(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self.p[f'{name}.weight'], self.p[f'{name}.bias'], eps)

    def attend(self, query, key, value, mask=None):
        query, key, value = (
            x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key, value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(D // HEADS)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float('-inf'))
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)

    def bert_layer(self, name, x, mask, eps, context=None, context_mask=None):
        """Post-norm: self-attention, cross-attention where there is a context, MLP."""
        pairs = [('attention', x, mask)]
        if context is not None:
            pairs.append(('crossattention', context, context_mask))
        for kind, keys, seen in pairs:
            keys = x if kind == 'attention' else keys
            at = f'{name}.{kind}'
            read = self.attend(
                self.linear(f'{at}.self.query', x),
                self.linear(f'{at}.self.key', keys),
                self.linear(f'{at}.self.value', keys),
                seen,
            )
            x = self.norm(
                f'{at}.output.LayerNorm', x + self.linear(f'{at}.output.dense', read), eps
            )
        inner = F.gelu(self.linear(f'{name}.intermediate.dense', x))
        x = x + self.linear(f'{name}.output.dense', inner)
        return self.norm(f'{name}.output.LayerNorm', x, eps)

    def text(self, ids, mask):
        """RoBERTa; token i stands at row i + 2 of the position table."""
        name = 'text_transformer.embeddings'
        words, positions, kinds = (
            self.p[f'{name}.{kind}_embeddings.weight']
            for kind in ('word', 'position', 'token_type')
        )
        x = words[ids] + positions[2 : 2 + ids.shape[1]] + kinds[0]
        x = self.norm(f'{name}.LayerNorm', x, 1e-5)
        for i in range(TEXT_LAYERS):
            x = self.bert_layer(f'text_transformer.encoder.layer.{i}', x, mask, 1e-5)
        return x

    def block(self, name, frames):
        """Patches see their frame, each frame's CLS sees every frame; frames: list of [b, n, d]."""
        weight, bias = self.p[f'{name}.attn.in_proj_weight'], self.p[f'{name}.attn.in_proj_bias']
        projected = [
            F.linear(self.norm(f'{name}.ln_1', x, 1e-5), weight, bias).chunk(3, -1) for x in frames
        ]
        all_keys, all_values = (torch.cat([x[i] for x in projected], 1) for i in (1, 2))
        after = []
        for x, (query, key, value) in zip(frames, projected):
            cls = self.attend(query[:, :1], all_keys, all_values)
            patches = self.attend(query[:, 1:], key, value)
            x = x + self.linear(f'{name}.attn.out_proj', torch.cat([cls, patches], 1))
            inner = self.linear(f'{name}.mlp.c_fc', self.norm(f'{name}.ln_2', x, 1e-5))
            inner = inner * torch.sigmoid(1.702 * inner)
            after.append(x + self.linear(f'{name}.mlp.c_proj', inner))
        return after

    def image(self, pixels, kept=None, hidden=None):
        """pixels [b, f, 3, s, s] -> [CLS of all frames, patches of 1, of 2, ...]."""
        name, frames = 'vision_transformer.visual', []
        for number in range(pixels.shape[1]):
            x = F.conv2d(pixels[:, number], self.p[f'{name}.conv1.weight'], stride=PATCH)
            x = x.flatten(2).transpose(1, 2)  # [b, n, d]
            if hidden is not None:
                x = torch.where(hidden[..., None], self.p[f'{name}.visual_mask_token'], x)
            cls = self.p[f'{name}.class_embedding'].expand(len(x), 1, -1)
            x = torch.cat([cls, x], 1) + self.p[f'{name}.positional_embedding']
            x = x + self.p[f'{name}.temporal_embed'][0, number]
            if kept is not None:
                there = torch.cat([torch.zeros_like(kept[:, :1]), kept + 1], 1)
                x = x.gather(1, there[..., None].expand(-1, -1, D))
            frames.append(self.norm(f'{name}.ln_pre', x, 1e-5))
        for i in range(IMAGE_LAYERS):
            frames = self.block(f'{name}.transformer.resblocks.{i}', frames)
        x = torch.cat([x[:, :1] for x in frames] + [x[:, 1:] for x in frames], 1)
        return self.norm(f'{name}.ln_post', x, 1e-5)

    def bridged(self, pixels, ids, mask, **options):
        text, image = self.text(ids, mask), self.image(pixels, **options)
        return (
            self.linear('cross_modal_text_transform', text),
            self.linear('cross_modal_image_transform', image),
        )

    def streams(self, pixels, ids, mask, **options):
        """Tokens of both streams after each fusion layer: list of (text, image)."""
        x, y = self.bridged(pixels, ids, mask, **options)
        types = self.p['token_type_embeddings.weight']
        x, y, after = x + types[0], y + types[1], []
        for i in range(FUSION_LAYERS):
            x, y = (
                self.bert_layer(f'cross_modal_text_layers.{i}', x, mask, 1e-12, y),
                self.bert_layer(f'cross_modal_image_layers.{i}', y, None, 1e-12, x, mask),
            )
            after.append((x, y))
        return after

    def contrast_head(self, name, x):
        x = F.gelu(self.norm(f'{name}.1', self.linear(f'{name}.0', x), 1e-5))
        return self.linear(f'{name}.3', x)

    def losses(self, pixels, given):
        """The five losses, each from passes of its own."""
        f, ids, mask = pixels.shape[1], given['ids'], given['mask']
        n = (SIZE // PATCH) ** 2
        text, image = self.bridged(pixels, ids, mask)
        losses = {
            'contrast': nce(
                self.contrast_head('language_proj', text[:, 0]),
                self.contrast_head('vision_proj', image[:, :f].mean(1)),
                self.p['cl_temp'],
            )
        }
        rows = given['pairs_rows'].long()
        x, y = self.streams(pixels, ids[rows], mask[rows])[-1]
        x = torch.tanh(self.linear('cross_modal_text_pooler.dense', x[:, 0]))
        y = torch.tanh(self.linear('cross_modal_image_pooler.dense', y[:, :f].mean(1)))
        logits = self.linear('itm_score.fc', torch.cat([x, y], -1))
        losses['itm'] = F.cross_entropy(logits, given['pairs_matches'].long())

        x, _ = self.streams(pixels, given['mlm_ids'], mask)[-1]
        x = F.gelu(self.linear('mlm_score.transform.dense', x))
        x = self.norm('mlm_score.transform.LayerNorm', x, 1e-12)
        logits = F.linear(x, self.p['mlm_score.decoder.weight'], self.p['mlm_score.bias'])
        losses['mlm'] = F.cross_entropy(logits.flatten(0, 1), given['mlm_labels'].flatten())

        seen_text, left_image = self.streams(pixels, ids, mask, kept=given['kept'])[-1]
        left_text, seen_image = self.streams(pixels, given['replaced_ids'], mask)[-1]
        per_frame = [nce(left_image[:, i], seen_image[:, i].detach(), TAU) for i in range(f)]
        losses['completion'] = sum(per_frame) / f + nce(
            left_text[:, 0], seen_text[:, 0].detach(), TAU
        )

        _, told_image = self.streams(pixels, ids, mask, hidden=given['hidden'])[-1]
        hidden = torch.cat([torch.zeros(len(ids), f, dtype=bool), given['hidden'].repeat(1, f)], 1)
        assert hidden.shape[1] == f + f * n
        patches = nce(told_image[hidden], seen_image[hidden].detach(), TAU)
        words = given['replaced']
        losses['local'] = patches + nce(left_text[words], seen_text[words].detach(), TAU)
        return losses


def nce(rows, columns, temperature):
    """SCL's NormSoftmaxLoss on cosines: cross-entropy of rows plus that of columns."""
    logits = F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T / temperature
    labels = torch.arange(len(logits))
    return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)


def questions(draw):
    """The random choices of a step, for 4 captions of which one has no inner word."""
    lengths, width = (8, 5, 2, 7), 8
    mask = padding_mask(lengths, width)
    ids = draw.integers(3, WORDS - 1, 4, width)
    for row, length in zip(ids, lengths):
        row[0], row[length - 1], row[length:] = 0, 2, PAD
    labels, mlm_ids, replaced = torch.full_like(ids, -100), ids.clone(), torch.zeros_like(mask)
    for row, places in enumerate([(2, 5), (1,), (), (3, 4, 5)]):
        for place in places:
            labels[row, place], mlm_ids[row, place] = ids[row, place], MASK
    for row, places in enumerate([(1, 4, 6), (2, 3), (), (5,)]):
        replaced[row, list(places)] = True
    order = torch.rand(4, (SIZE // PATCH) ** 2, generator=draw.generator).argsort(-1)
    return dict(
        ids=ids,
        mask=mask,
        mlm_ids=mlm_ids,
        mlm_labels=labels,
        replaced=replaced,
        replaced_ids=ids.masked_fill(replaced, MASK),
        kept=order[:, :3].sort(-1)[0],
        hidden=draw.subset_masks(4, (SIZE // PATCH) ** 2, 4),
        pairs_rows=torch.tensor([0, 2, 2, 1]),  # texts of row 1 and 3 are other ones
        pairs_matches=torch.tensor([True, False, True, False]),
    )


def check_text_tower(params, given):
    """The text tower is that of transformers."""
    config = RobertaConfig(
        vocab_size=WORDS,
        hidden_size=D,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        max_position_embeddings=12,
        type_vocab_size=1,
        pad_token_id=PAD,
        layer_norm_eps=1e-5,
    )
    model = RobertaModel(config, add_pooling_layer=False).double().eval()
    prefix = 'text_transformer.'
    state = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and not left.missing_keys, left
    theirs = model(given['ids'], attention_mask=given['mask'].long()).last_hidden_state
    ours = Reference(params).text(given['ids'], given['mask'])
    check_close(ours[given['mask']], theirs[given['mask']], 'RoBERTa tower', tolerance=1e-10)


def write_scl(folder):
    """One golden for images and one for videos, with the same parameters and choices."""
    draw = Draw(401)
    values, given = parameters(draw), questions(draw)
    with torch.no_grad():
        check_text_tower(values, given)
    inputs, outputs = dict(given), {}
    for f in (1, 3):
        frames = draw.integers(0, 256, 4, f, SIZE, SIZE, 3)
        inputs[f'frames_{f}'] = frames
        pixels = ((frames.double() / 255 - MEAN) / STD).permute(0, 1, 4, 2, 3)
        params = {name: value.clone().requires_grad_() for name, value in values.items()}
        model = Reference(params)
        losses = model.losses(pixels, given)
        sum(WEIGHTS[name] * loss for name, loss in losses.items()).backward()
        outputs |= {f'{f}/loss_{name}': loss for name, loss in losses.items()}
        outputs |= {f'{f}/grad/{name}': params[name].grad for name in GRADIENTS}
        with torch.no_grad():
            text, image = model.bridged(pixels, given['ids'], given['mask'])
            outputs |= {f'{f}/text': text, f'{f}/image': image}
            outputs[f'{f}/kept'] = model.bridged(
                pixels, given['ids'], given['mask'], kept=given['kept']
            )[1]
            for i, (x, y) in enumerate(model.streams(pixels, given['ids'], given['mask'])):
                outputs |= {f'{f}/text_{i}': x, f'{f}/image_{i}': y}
    config = dict(
        width=D,
        heads=HEADS,
        mlp_width=MLP,
        words=WORDS,
        features=FEATURES,
        image_size=SIZE,
        patch_size=PATCH,
        places=PLACES,
        depths=[TEXT_LAYERS, IMAGE_LAYERS, FUSION_LAYERS],
        mean=MEAN,
        std=STD,
        temperature=TAU,
        weights=WEIGHTS,
        pad=PAD,
        mask=MASK,
    )
    write(f'{folder}/scl.npz', config=config, params=values, inputs=inputs, outputs=outputs)


def write_all(folder):
    write_scl(folder)
