"""Predict functions that evaluators call: (variables, *inputs) -> arrays.

`variables` has the field `params`; which params those are (EMA or online) is the caller's choice.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.heads import EncodingHead
from semmim_jax.models.semmim import SemMIM
from semmim_jax.ops.sampling import greedy_texts
from semmim_jax.tasks.cached_decoder import cached_decoder
from semmim_jax.tasks.pretrain.patches import all_patches, global_token
from semmim_jax.tasks.pretrain.plan import Plan
from semmim_jax.tasks.pretrain.targets import Caption, code_logits
from semmim_jax.tasks.pretrain.teacher import choose_patches, patch_relevance


def retrieval_fns(model: SemMIM, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for retrieval; without ITM among the active losses, 'image' and 'text' only.

    Returns:
      image: images uint8 [b, s, s, 3] -> features [b, e].
      context: images -> fusion keys and values of their tokens, to be computed once per image.
      text: ids [b, t] -> {'feature' [b, e], 'tokens' [b, t, d], 'mask' [b, t]}.
      match: context, rows [p] into it, tokens [p, t, d], mask [p, t] -> ITM logits [p, 2], class 1
        is a match.
      fused: inputs of match -> tokens of the fusion encoder [p, t, d].
    """

    def encode_image(model, images):
        return model.project_image(global_token(plan.config, model.encode_image(images)))

    def encode_context(model, images):
        return model.image_context(model.encode_image(images))

    def encode_text(model, ids):
        mask = ids != plan.special.pad
        tokens = model.encode_text(ids, mask)
        return {'feature': model.project_text(tokens[:, 0]), 'tokens': tokens, 'mask': mask}

    def match(model, context, rows, tokens, mask):
        cls = jnp.zeros((len(tokens), 1), jnp.int32)
        fused = model.fuse(tokens, mask, context, context_index=rows, queries=cls)
        return model.match(fused[:, 0])

    def fuse(model, context, rows, tokens, mask):
        return model.fuse(tokens, mask, context, context_index=rows).astype(jnp.float32)

    fns = {'image': encode_image, 'text': encode_text}
    if 'itm' in plan.active:
        fns |= {'context': encode_context, 'match': match, 'fused': fuse}
    return {name: _applied(fn, model) for name, fn in fns.items()}


def explain_fns(model: SemMIM, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for word maps (docs/method.md section 8.7), with ITM among the active losses.

    Returns:
      explain: images uint8 [b, s, s, 3], ids [b, t] -> {'attention', 'gradcam' float32
        [b, layers, t, n], 'match' logits [b, 2]}: which patches each token reads, and how much they
        make of the match.
    """

    def explain(variables, images, ids):
        sizes = model.config.fusion_depth, len(ids), model.config.text.heads, ids.shape[1]
        mask = ids != plan.special.pad

        def read(model, added):
            context = model.image_context(model.encode_image(images))
            fused, weights = model.fuse_with_weights(
                model.encode_text(ids, mask), mask, context, added
            )
            return model.match(fused[:, 0]), weights

        def match(added):
            logits, weights = nn.apply(read, model)({'params': variables.params}, added)
            return logits[:, 1].sum(), (logits, weights)

        zeros = jnp.zeros((*sizes, plan.grid**2 + 1))
        gradient, (logits, weights) = jax.grad(match, has_aux=True)(zeros)
        gradcam = (weights * jnp.maximum(gradient, 0)).mean(axis=2)  # [layers, b, t, n + 1]
        maps = {'attention': weights.mean(axis=2), 'gradcam': gradcam}
        maps = {name: x[..., 1:].swapaxes(0, 1) for name, x in maps.items()}
        return maps | {'match': logits}

    return {'explain': explain} if 'itm' in plan.active else {}


def patch_fns(model: SemMIM, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for whoever looks at patches.

    Returns:
      patches: images uint8 [b, s, s, 3] -> features of the image tower float32 [b, n, d].
      cls: images -> its feature of CLS float32 [b, d].
      patch_projections: images -> its patches as ITC projects images, float32 [b, n, e], unit.
      encode_patches: images, ids [b, t] or None, the texts' `Words` or None where they are not
        read -> {'features' as above, 'values' float32 [b, n, d] of the last block's attention};
        with codes in the targets also 'codes' int32 [b, n] and, with ids, 'codes_with_text'.
    """
    encoded = lambda model, images: model.encode_image(images).astype(jnp.float32)

    def encode_patches(model, images, ids, words):
        tokens, values = model.image_values(images)
        outputs = {'features': tokens[:, 1:], 'values': values}
        outputs = {name: x.astype(jnp.float32) for name, x in outputs.items()}
        if not plan.has_codes:
            return outputs
        code = lambda kind, caption: code_logits(
            model, plan, kind, tokens, caption, all_patches(tokens)
        )[1].argmax(axis=-1)
        outputs['codes'] = code('none', Caption(None, None, None))
        if ids is not None:
            valid = ids != plan.special.pad
            caption = Caption(model.encode_text(ids, valid), valid, words)
            outputs['codes_with_text'] = code(plan.config.mim.inject_teacher, caption)
        return outputs

    fns = {
        'patches': lambda model, images: encoded(model, images)[:, 1:],
        'cls': lambda model, images: encoded(model, images)[:, 0],
        'patch_projections': lambda model, images: model.project_image(
            model.encode_image(images)[:, 1:]
        ),
        'encode_patches': encode_patches,
    }
    return {name: _applied(fn, model) for name, fn in fns.items()}


def pattern_fns(model: SemMIM, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for the quality of patterns (docs/method.md section 8) and the picture of the mask.

    Returns:
      patterns: images [b, s, s, 3], ids [b, t], the captions' `Words` or None where they are not
        read, key of the mask -> a dict of
        codes_with_text, codes_without_text int32 [b, n], scores [b, n] (of the former),
        random_codes_with_text, random_codes_without_text int32 [b, n], of one head with random
        weights, the same at every call, on the same tokens; cls_codes int32 [b],
        features [b, n, d] (of the image tower), features_with_text [b, n, d'] (what the heads read
        with text), relevance [b, n], masked bool [b, n], num_codes int32 [b] (k, in each row);
        and where words are read word_codes int32 [b, n], the entry of the lexicon that each patch
        resembles most among those of its caption. Prototypes read no text, so that with clustered
        targets the codes are the same with it and without.
    """
    mim = plan.config.mim

    def patterns(model, images, ids, words, key):
        valid = ids != plan.special.pad
        tokens, text = model.encode_image(images), model.encode_text(ids, valid)
        caption = Caption(text, valid, words)
        read = lambda kind: code_logits(model, plan, kind, tokens, caption, all_patches(tokens))
        informed, with_text = read(mim.inject_teacher)  # [b, n, d], [b, n, k]
        plain, without_text = read('none')
        random_codes = _random_head(model, informed.shape[-1])
        context = model.image_context(tokens)
        feature = model.project_text(text[:, 0])
        relevance = patch_relevance(model, plan, tokens, text, feature, valid, context, words)
        chosen = choose_patches(plan, relevance, key)
        masked = (
            jnp.zeros(relevance.shape, bool).at[jnp.arange(len(ids))[:, None], chosen].set(True)
        )
        outputs = {}
        if words is not None:
            options = dict(temperature=mim.word_temperature, rarity=mim.word_rarity)
            nearest = model.read_words(tokens, words, **options).argmax(-1)  # [b, n]
            outputs['word_codes'] = jnp.take_along_axis(words.entries, nearest, axis=1)
        return outputs | {
            'codes_with_text': with_text.argmax(-1),
            'codes_without_text': without_text.argmax(-1),
            'scores': with_text.max(-1),
            'random_codes_with_text': random_codes(informed),
            'random_codes_without_text': random_codes(plain),
            'cls_codes': model.encoding_head(model.to_fusion(tokens[:, 0])).argmax(-1),
            'features': tokens[:, 1:].astype(jnp.float32),
            'features_with_text': informed.astype(jnp.float32),
            'relevance': relevance,
            'masked': masked,
            'num_codes': jnp.full(len(ids), with_text.shape[-1]),
        }

    return {'patterns': _applied(patterns, model)}


def _random_head(model: SemMIM, width: int) -> Callable[[jax.Array], jax.Array]:
    """Codes of the encoding head with random weights: tokens [..., width] -> int32 [...].

    Its key is fixed: with one of the batch, each batch would be coded by another head.
    """
    head = EncodingHead(dtype=jnp.float32, parent=None, **model.config.encoding)
    variables = head.init(jax.random.key(0), jnp.zeros((1, width)))
    return lambda tokens: head.apply(variables, tokens.astype(jnp.float32)).argmax(-1)


def caption_fns(model: SemMIM, plan: Plan) -> dict[str, Callable[..., Any]]:
    """Functions for captions, if the decoder is trained.

    Returns:
      caption: images [b, s, s, 3], prefix [b, t] -> `ops.sampling.Texts` [b, t] that follow the
        prefix. A prefix is [CLS], words and padding, as PrefixLM reads it (`ops/prefix.py`), no
        [SEP]. [CLS] alone, which training never shows, is the nearest to it without any words.
    """

    def caption(variables, images, prefix):
        def read(model):
            valid = prefix != plan.special.pad
            tokens = model.encode_image(images)
            text = model.encode_text(prefix, valid)
            fused = model.fuse(text, valid, model.image_context(tokens))
            image = model.to_fusion(tokens)
            valid = jnp.concatenate([jnp.ones(image.shape[:2], bool), valid], axis=1)
            return jnp.concatenate([image, fused], axis=1), valid

        rows, length = prefix.shape
        decoder = cached_decoder(model, variables.params, read, texts=1, length=length)
        return greedy_texts(*decoder, rows=rows, length=length, special=plan.special)

    return {'caption': caption} if 'prefix' in plan.active else {}


def _applied(fn: Callable[..., Any], model: SemMIM) -> Callable[..., Any]:
    return lambda variables, *inputs: nn.apply(fn, model)({'params': variables.params}, *inputs)
