"""Lines printed before the first step: the data, the texts, the length of the run."""

from typing import Any

import numpy as np

from semmim_jax.data.text import clean_caption
from semmim_jax.data.text_lengths import bucket_shares
from semmim_jax.data.unreadable import readable_entries
from semmim_jax.run.fingerprint import spread

LOOKED_AT = 1000  # records whose texts are read


def describe_data(source: Any, tokenizer: Any, config: Any, lexicon: Any = None) -> list[str]:
    """Lines on the training data; up to `LOOKED_AT` records, evenly spread, stand for the texts.

    Args:
      source: of training records.
      tokenizer: of the run.
      config: the experiment.
      lexicon: of the captions, if the run has one.
    """
    records, batch = len(source), config.train.batch_size
    entries = list(readable_entries(source, spread(records, LOOKED_AT)))
    some = '' if len(entries) == records else f' (of {len(entries):,} looked at)'
    images = len({entry['image_id'] for entry in entries})
    captions = [text for entry in entries for text in entry.get('captions', ())]
    counts = [f'{records:,} records', f'{images:,} images{some}']
    if captions:
        counts.append(f'{len(captions):,} captions{some}')
    epochs = config.train.steps * batch / records
    lines = [
        f'data: {", ".join(counts)}; an epoch is {max(records // batch, 1):,} steps of {batch}, '
        f'the run {epochs:.3g} epochs'
    ]
    texts = captions or [text for entry in entries for text in entry.get('targets', ())]
    if texts:
        lengths = np.array([tokenizer.length(text) for text in texts])
        used = {i for text in texts for i in tokenizer.encode(text, lengths.max()).tolist()}
        used -= {tokenizer.pad_id}
        writes = 'max_target_tokens' in config.data
        limit = config.data.max_target_tokens if writes else config.data.max_tokens
        lines.append(
            f'text: {len(used):,} of {tokenizer.vocab_size:,} tokens used; texts have '
            f'{np.median(lengths):.0f} tokens in the median, {lengths.max()} at most; '
            f'{(lengths > limit).mean():.1%} are longer than {limit} and are cut{some}'
        )
        if config.data.text_buckets:
            lines.append(_buckets_line(captions, tokenizer, config))
    if lexicon:
        shown = ', '.join(map(repr, lexicon.texts[:3]))
        lines.append(
            f'words: {sum(count > 0 for count in lexicon.counts):,} in {lexicon.captions:,} '
            f'captions; {len(lexicon.names):,} are names of several tokens'
            + (f' ({shown}{", ..." * (len(lexicon.texts) > 3)})' if shown else '')
        )
    return lines


def _buckets_line(captions: list[str], tokenizer: Any, config: Any) -> str:
    """To what batches will be padded, expected from the lengths of some captions."""
    if config.data.clean_text:
        captions = [clean_caption(text, max_words=config.data.max_words) for text in captions]
    texts = np.array([tokenizer.length(text) for text in captions])
    longest, batch = config.data.max_tokens, config.train.batch_size
    lengths = (*config.data.text_buckets, longest)
    shares = bucket_shares(texts, lengths, batch_size=batch)
    each = ', '.join(f'{length} ({share:.0%})' for length, share in zip(lengths, shares))
    mean = shares @ lengths
    return (
        f'buckets: expected of batches of {batch} are texts padded to {each} tokens, {mean:.1f} in '
        f'the mean: {1 - mean / longest:.1%} fewer than {longest}'
    )
