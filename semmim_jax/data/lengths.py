"""How long the texts of a run usually are, for decoding that is to write such texts."""

import numpy as np

from semmim_jax.data.records import Source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.unreadable import readable_entries

RECORDS = 5000  # that are looked at, evenly spread


def usual_minimum(source: Source, tokenizer: Tokenizer, *, max_words: int) -> int:
    """The 1st percentile of the lengths of captions or targets: hardly a text is shorter.

    Args:
      source: of training records.
      tokenizer: of the run.
      max_words: of a caption, as config.data.max_words; targets are not cut.

    Returns:
      Tokens, [CLS] and [SEP] not counted; at least 1.
    """
    lengths = []
    positions = np.unique(np.linspace(0, len(source) - 1, RECORDS).astype(int)).tolist()
    for entry in readable_entries(source, positions):
        captions = [clean_caption(x, max_words=max_words) for x in entry.get('captions', ())]
        texts = captions or entry.get('targets') or [entry['label']]
        lengths += [tokenizer.length(text) - 2 for text in texts]
    return max(1, int(np.percentile(lengths, 1, method='lower')))
