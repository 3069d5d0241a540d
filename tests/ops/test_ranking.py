"""Answer ranking against every answer's likelihood by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.ops.ranking import rank_answers

ROWS, ANSWERS, TOKENS, WORDS = 3, 9, 4, 12


def toy(seed=0):
    """A bigram model by row: logits[row, token, next]; answers of unequal length."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(ROWS, WORDS, WORDS)).astype(np.float32)
    answers = np.zeros((ANSWERS, TOKENS), np.int32)
    for answer in answers:
        length = rng.integers(0, TOKENS)
        answer[: length + 1] = [*rng.integers(5, WORDS, length), 3]
    return logits, answers


def likelihoods(logits, answers):
    """[b, k] of answers [b, k, t], plainly; tokens follow [CLS] = 2."""
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    actual = np.zeros(answers.shape[:2], np.float32)
    for row, column in np.ndindex(*actual.shape):
        last = 2
        for token in answers[row, column]:
            if token:
                actual[row, column] += log_p[row, last, token]
                last = token
    return actual


def rank(logits, answers, count):
    def full(chosen):
        shape = jax.ShapeDtypeStruct(chosen.shape[:2], jnp.float32)
        return jax.pure_callback(lambda a: likelihoods(logits, np.asarray(a)), shape, chosen)

    actual = rank_answers(jnp.asarray(logits[:, 2]), jnp.asarray(answers), full, count=count)
    return jax.tree.map(np.asarray, actual)


def test_all_answers_in_the_order_of_their_likelihood():
    logits, answers = toy()
    index, scores = rank(logits, answers, ANSWERS)
    every = likelihoods(logits, np.broadcast_to(answers, (ROWS, ANSWERS, TOKENS)))
    np.testing.assert_array_equal(index, np.argsort(-every, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-every, axis=1), rtol=1e-5)


def test_only_those_of_likely_first_tokens_are_candidates():
    logits, answers = toy(seed=1)
    answers[:, 0] = np.arange(ANSWERS) + 3  # distinct, so that the first cut has no ties
    index, _ = rank(logits, answers, 3)
    likely = np.argsort(-logits[:, 2, answers[:, 0]], axis=1)[:, :3]
    np.testing.assert_array_equal(np.sort(index), np.sort(likely))
