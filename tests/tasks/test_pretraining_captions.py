"""Captions of pre-training, against greedy decoding that repeats the whole pass for each token."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tests.tasks.downstream import Params
from tests.tasks.warm_state import SPECIAL, jit, warm_state

ROWS = 6


def test_captions_are_those_of_whole_passes_and_have_their_likelihood(config):
    warm = warm_state(config, rows=ROWS)
    images, prefix = warm.batch['image1'], np.array(warm.batch['ids'])
    prefix[:, 4:], prefix[prefix == SPECIAL.sep] = SPECIAL.pad, SPECIAL.pad
    prefix[0, 1:] = SPECIAL.pad  # a beginning of no words

    def whole_pass(model, inputs):
        valid, tokens = prefix != SPECIAL.pad, model.encode_image(images)
        fused = model.fuse(model.encode_text(prefix, valid), valid, model.image_context(tokens))
        context = jnp.concatenate([tokens, fused], axis=1)
        read = jnp.concatenate([jnp.ones(tokens.shape[:2], bool), valid], axis=1)
        return model.decode(inputs, context, read)

    forward = jit(nn.apply(whole_pass, warm.task.model))
    length = prefix.shape[1]
    inputs = np.full((ROWS, length + 1), SPECIAL.pad)
    inputs[:, 0], ended, log_p = SPECIAL.cls, np.zeros(ROWS, bool), np.zeros((ROWS, length))
    for t in range(length):
        logits = np.asarray(forward({'params': warm.params}, inputs[:, :-1]), np.float64)[:, t]
        token = logits.argmax(-1)
        log_p[:, t] = logits.max(-1) - np.log(np.exp(logits).sum(-1))
        log_p[ended, t] = np.nan
        inputs[:, t + 1] = np.where(ended, SPECIAL.pad, token)
        ended |= token == SPECIAL.sep
    caption = jit(warm.task.predict_fns()['caption'])
    written = caption(Params(warm.params), images, prefix)
    assert written.ids.tolist() == inputs[:, 1:].tolist()
    np.testing.assert_allclose(written.scores, np.nanmean(log_p, axis=1), rtol=1e-5)
    assert len({tuple(row) for row in inputs.tolist()}) > 2, 'texts are to differ'
