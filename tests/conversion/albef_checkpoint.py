"""Checkpoints with the names and shapes of ALBEF's, from its public code: models/model_pretrain.py,
model_vqa.py (the decoder), vit.py and xbert.py."""

import numpy as np

Shapes = dict[str, tuple[int, ...]]


def dense(name: str, wide: int, into: int) -> Shapes:
    return {f'{name}.weight': (wide, into), f'{name}.bias': (wide,)}


def norm(name: str, width: int) -> Shapes:
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def vision(name: str, *, width: int, mlp: int, depth: int, patch: int, tokens: int) -> Shapes:
    """VisionTransformer."""
    shapes = {
        f'{name}.cls_token': (1, 1, width),
        f'{name}.pos_embed': (1, tokens, width),
        f'{name}.patch_embed.proj.weight': (width, 3, patch, patch),
        f'{name}.patch_embed.proj.bias': (width,),
        **norm(f'{name}.norm', width),
    }
    for i in range(depth):
        block = f'{name}.blocks.{i}'
        shapes |= norm(f'{block}.norm1', width) | norm(f'{block}.norm2', width)
        shapes |= dense(f'{block}.attn.qkv', 3 * width, width)
        shapes |= dense(f'{block}.attn.proj', width, width)
        shapes |= dense(f'{block}.mlp.fc1', mlp, width) | dense(f'{block}.mlp.fc2', width, mlp)
    return shapes


def bert(name: str, *, width, mlp, words, positions, depth, cross_from) -> Shapes:
    """BertForMaskedLM and BertLMHeadModel of xbert."""
    embeddings, head = f'{name}.bert.embeddings', f'{name}.cls.predictions'
    shapes = {
        f'{embeddings}.position_ids': (1, positions),
        f'{embeddings}.word_embeddings.weight': (words, width),
        f'{embeddings}.position_embeddings.weight': (positions, width),
        f'{embeddings}.token_type_embeddings.weight': (2, width),
        **norm(f'{embeddings}.LayerNorm', width),
        f'{head}.bias': (words,),
        **dense(f'{head}.transform.dense', width, width),
        **norm(f'{head}.transform.LayerNorm', width),
        **dense(f'{head}.decoder', words, width),
    }
    for i in range(depth):
        layer = f'{name}.bert.encoder.layer.{i}'
        for part in ('attention', 'crossattention')[: 1 + (i >= cross_from)]:
            for what in ('self.query', 'self.key', 'self.value', 'output.dense'):
                shapes |= dense(f'{layer}.{part}.{what}', width, width)
            shapes |= norm(f'{layer}.{part}.output.LayerNorm', width)
        shapes |= dense(f'{layer}.intermediate.dense', mlp, width)
        shapes |= dense(f'{layer}.output.dense', width, mlp)
        shapes |= norm(f'{layer}.output.LayerNorm', width)
    return shapes


def albef_shapes(model, *, tokens: int, queue: int, decoder: bool) -> Shapes:
    """Every tensor of an ALBEF of the sizes of `config.model`.

    Args:
      model: `config.model`.
      tokens: of the image, CLS included.
      queue: its length.
      decoder: whether there is the decoder of the VQA model.
    """
    image, text = model.image, model.text
    sizes = dict(width=text.width, mlp=text.mlp_width, words=text.vocab_size)
    sizes |= dict(positions=text.max_positions)
    shapes = {'temp': (), **dense('itm_head', 2, text.width)}
    shapes |= {f'{side}_queue': (model.embed_dim, queue) for side in ('image', 'text')}
    shapes |= {'queue_ptr': (1,)}
    for copy in ('', '_m'):
        shapes |= vision(
            f'visual_encoder{copy}',
            width=image.width,
            mlp=image.mlp_width,
            depth=image.depth,
            patch=image.patch_size,
            tokens=tokens,
        )
        depth = text.depth + model.fusion_depth
        shapes |= bert(f'text_encoder{copy}', depth=depth, cross_from=text.depth, **sizes)
        shapes |= dense(f'vision_proj{copy}', model.embed_dim, image.width)
        shapes |= dense(f'text_proj{copy}', model.embed_dim, text.width)
    if decoder:
        shapes |= bert('text_decoder', depth=model.decoder_depth, cross_from=0, **sizes)
    return shapes


def albef_tensors(shapes: Shapes) -> dict[str, np.ndarray]:
    """Random values; tied tensors repeat what they are tied to."""
    rng = np.random.default_rng(0)
    tensors = {k: rng.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}
    for name in shapes:
        tower, _, rest = name.partition('.')
        if rest.endswith('position_ids'):
            tensors[name] = np.arange(shapes[name][1])[None]
        if rest == 'cls.predictions.decoder.weight':
            tensors[name] = tensors[f'{tower}.bert.embeddings.word_embeddings.weight']
        if rest == 'cls.predictions.decoder.bias':
            tensors[name] = tensors[f'{tower}.cls.predictions.bias']
    return tensors | {'queue_ptr': np.zeros(1, np.int64)} if 'queue_ptr' in shapes else tensors
