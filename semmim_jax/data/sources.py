"""Sources by name: 'emoji_scenes:SPLIT', 'captions:PATH'.

A source is stateless and picklable, has a length, and gives record i by source[i]: image uint8
[h, w, 3] RGB; captions, a list of str; image_id, the same for the same image; and maybe labels
int16 [h, w], 0 for background. source.captions(i) and source.image_id(i) answer without the image,
and source.vocabulary_texts() gives what a vocabulary is made from.
"""

import dataclasses

from semmim_jax.data.captions import CaptionList
from semmim_jax.data.emoji_scenes import EmojiScenes
from semmim_jax.data.replacing import UnreadableRecord

__all__ = ['KNOWN', 'UnreadableRecord', 'make_source']

KNOWN = ('emoji_scenes:SPLIT', 'captions:PATH')


def make_source(spec: str, data_config):
    """Makes the source that `spec` names, with its options from `config.data`.

    Raises ValueError for an unknown name, and what the source raises for its own options.
    """
    name, _, argument = spec.partition(':')
    if name == 'emoji_scenes' and argument:
        options = dict(data_config.emoji_scenes)
        known = {field.name for field in dataclasses.fields(EmojiScenes)} - {'split'}
        for what, keys in (('lacks', known - set(options)), ('has unknown', set(options) - known)):
            if keys:
                raise ValueError(f'config.data.emoji_scenes {what} keys {", ".join(sorted(keys))}')
        return EmojiScenes(split=argument, **options)
    if name == 'captions' and argument:
        return CaptionList(
            argument,
            image_root=data_config.captions.image_root,
            decoder=data_config.decoder,
            max_pixels=data_config.max_pixels,
        )
    raise ValueError(f'unknown source {spec!r}: known are {", ".join(KNOWN)}')
