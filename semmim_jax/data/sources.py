"""Sources by name, as in config.data.train.

  emoji_scenes:SPLIT                 pictures with captions, and emoji_NAME:SPLIT for other tasks
  captions:PATH                      a list of images and captions
  coco:FILE                          COCO's own captions_*.json
  karpathy:FILE:SPLIT                COCO, Flickr30K
  vqa:QUESTIONS[,ANNOTATIONS]        VQA v2
  nlvr2:FILE
  jsonl:FILE                         the project's list for generate and classify
  easy_vqa:SPLIT

Lists of image files can be joined: 'vqa:Q1,A1 + vqa:Q2,A2 + jsonl:FILE'.

A source is stateless and picklable, has a length, and gives record i by source[i]: image uint8
[h, w, 3] RGB, or images, two of them; image_id, the same for the same image; captions, or prompt
with targets or label, see image_texts.ImageText; and maybe labels int16 [h, w], 0 for background.
source.entry(i) is the record without images and labels, source.image_id(i) its image_id, and
source.vocabulary_texts() gives what a vocabulary is made from. Sources of captions also have
captions(i), others truths() and label_names().
"""

import dataclasses

from semmim_jax.data.captions import read_captions, without_empty
from semmim_jax.data.coco import read_coco
from semmim_jax.data.easy_vqa import read_easy_vqa
from semmim_jax.data.emoji_faces import EmojiSentiment, FaceScenes
from semmim_jax.data.emoji_languages import EmojiFrench, EmojiGerman
from semmim_jax.data.emoji_prompts import EmojiAsking, EmojiDialog
from semmim_jax.data.emoji_questions import EmojiQuestions
from semmim_jax.data.emoji_scenes import EmojiScenes
from semmim_jax.data.emoji_statements import EmojiStatements
from semmim_jax.data.image_texts import ImageTexts
from semmim_jax.data.json_lines import read_json_lines
from semmim_jax.data.karpathy import read_karpathy
from semmim_jax.data.nlvr2 import read_nlvr2
from semmim_jax.data.replacing import UnreadableRecord
from semmim_jax.data.vqa import read_vqa

__all__ = ['KNOWN', 'UnreadableRecord', 'make_source']

_READERS = {
    'captions': read_captions,
    'coco': read_coco,
    'karpathy': read_karpathy,
    'vqa': read_vqa,
    'nlvr2': read_nlvr2,
    'jsonl': read_json_lines,
    'easy_vqa': read_easy_vqa,
}
_SCENE_TEXTS = {
    each.name: each
    for each in (
        EmojiQuestions,
        EmojiStatements,
        EmojiAsking,
        EmojiDialog,
        EmojiGerman,
        EmojiFrench,
        EmojiSentiment,
    )
}
KNOWN = (
    'emoji_scenes:SPLIT',
    'captions:PATH',
    'coco:FILE',
    'karpathy:FILE:SPLIT',
    'vqa:QUESTIONS[,ANNOTATIONS]',
    'nlvr2:FILE',
    'jsonl:FILE',
    'easy_vqa:SPLIT',
    *(f'{name}:SPLIT' for name in _SCENE_TEXTS),
)


def make_source(spec: str, data_config):
    """Makes the source that `spec` names, with its options from `config.data`.

    Raises ValueError for an unknown name, and what the source raises for its own options.
    """
    parts = [part.partition(':') for part in spec.split(' + ')]
    if all(name in _READERS and argument for name, _, argument in parts):
        records = []
        for name, _, argument in parts:
            read = _READERS[name](argument, image_root=data_config.captions.image_root)
            records += without_empty(read, max_share=data_config.max_replaced)
        return ImageTexts(records, decoder=data_config.decoder, max_pixels=data_config.max_pixels)
    name, _, split = parts[0]
    if len(parts) == 1 and split and name in ('emoji_scenes', *_SCENE_TEXTS):
        options = dict(data_config.emoji_scenes)
        known = {field.name for field in dataclasses.fields(EmojiScenes)} - {'split'}
        for what, keys in (('lacks', known - set(options)), ('has unknown', set(options) - known)):
            if keys:
                raise ValueError(f'config.data.emoji_scenes {what} keys {", ".join(sorted(keys))}')
        scenes = FaceScenes if name == EmojiSentiment.name else EmojiScenes
        scenes = scenes(split=split, **options)
        return scenes if name == 'emoji_scenes' else _SCENE_TEXTS[name](scenes)
    raise ValueError(f'unknown source {spec!r}: known are {", ".join(KNOWN)}')
