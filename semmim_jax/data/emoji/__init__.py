"""Emoji scenes and videos: the embedded demo corpus. Real artwork, composed by a seed and an index.

The rest of the package knows nothing of it: setup.cfg names `CORPORA` as a plug-in of
data/readers/sources.py, as any other package's corpus would be.
"""

import dataclasses
import functools
from collections.abc import Callable

from semmim_jax.data.config import DataConfig
from semmim_jax.data.emoji import artwork
from semmim_jax.data.emoji.compositions import EmojiCompositions
from semmim_jax.data.emoji.faces import EmojiSentiment, FaceScenes
from semmim_jax.data.emoji.languages import EmojiFrench, EmojiGerman
from semmim_jax.data.emoji.prompts import EmojiAsking, EmojiDialog
from semmim_jax.data.emoji.questions import EmojiQuestions
from semmim_jax.data.emoji.scenes import EmojiScenes
from semmim_jax.data.emoji.statements import EmojiStatements
from semmim_jax.data.emoji.texts import SceneTexts
from semmim_jax.data.emoji.videos import EmojiVideos
from semmim_jax.data.readers.corpus import Corpus
from semmim_jax.data.records import Source

_TEXTS: tuple[type[SceneTexts], ...] = (
    EmojiQuestions,
    EmojiStatements,
    EmojiAsking,
    EmojiDialog,
    EmojiGerman,
    EmojiFrench,
    EmojiSentiment,
    EmojiCompositions,
)


_Over = Callable[[EmojiScenes], Source]  # a source made from scenes


def _make(split: str, data_config: DataConfig, *, over: _Over | None) -> Source:
    options = dict(data_config['emoji_scenes'])
    known = {field.name for field in dataclasses.fields(EmojiScenes)} - {'split'}
    for what, keys in (('lacks', known - set(options)), ('has unknown', set(options) - known)):
        if keys:
            raise ValueError(f'config.data.emoji_scenes {what} keys {", ".join(sorted(keys))}')
    scenes = (FaceScenes if over is EmojiSentiment else EmojiScenes)(split=split, **options)
    return over(scenes) if over else scenes


CORPORA = {
    name: Corpus(make=functools.partial(_make, over=over), attribution=artwork.CREDIT)
    for name, over in {
        'emoji_scenes': None,
        'emoji_videos': EmojiVideos,
        **{texts.name: texts for texts in _TEXTS},
    }.items()
}
