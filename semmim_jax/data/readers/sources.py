"""Sources by name, as in config.data.train.

  captions:PATH                      a list of images and captions
  albef:FILE                         such a list, or ALBEF's of VQA and NLVR2
  coco:FILE                          COCO's own captions_*.json
  karpathy:FILE:SPLIT                COCO, Flickr30K
  vqa:QUESTIONS[,ANNOTATIONS]        VQA v2
  vg:FILE                            Visual Genome: region_descriptions.json
  vgqa:FILE                          Visual Genome: question_answers.json
  nlvr2:FILE
  jsonl:FILE                         the project's list for generate and classify
  easy_vqa:SPLIT
  sugarcrepe:FILE, aro:FILE, winoground:FILE   tests of composition, for eval.compositions

  shards:DIR                         prepared shards, see data/shards.py
  tar:GLOB                           tars of img2dataset, read where they are, see data/tars.py
  tfds:DIR:SPLIT                     a data set of tensorflow-datasets, see data/tfds.py
  NAME:SPLIT                         a corpus of an installed package, see corpus.py

Sources can be joined, 'vqa:Q1,A1 + vqa:Q2,A2 + jsonl:FILE', or mixed by weights for training,
'shards:A @ 5 + shards:B @ 3', see data/mixtures.py. Of lists that are joined, entries of one image
have one image id.

A source is stateless and picklable, has a length, and gives record i by source[i]: image uint8
[h, w, 3] RGB, or images, two of them; image_id, the same for the same image; captions, or prompt
with targets or label, see image_texts.ImageText; and maybe labels int16 [h, w], 0 for background.
source.entry(i) is the record without images and labels, source.image_id(i) its image_id, and
source.vocabulary_texts() gives what a vocabulary is made from. Sources of captions also have
captions(i), others truths() and label_names(). source.attribution is whose work the images show,
'' if that need not be said, and source.patch_label_names are the names of labels 1, 2, ...
"""

from collections.abc import Callable

from semmim_jax.data.cloud import on_disk
from semmim_jax.data.config import DataConfig
from semmim_jax.data.mixtures import Joined, Mixture, whole_weights
from semmim_jax.data.readers.albef import read_albef
from semmim_jax.data.readers.captions import read_captions, without_empty
from semmim_jax.data.readers.coco import read_coco
from semmim_jax.data.readers.compositions import read_aro, read_sugarcrepe, read_winoground
from semmim_jax.data.readers.corpus import installed_corpora
from semmim_jax.data.readers.easy_vqa import read_easy_vqa
from semmim_jax.data.readers.image_texts import ImageText, ImageTexts
from semmim_jax.data.readers.json_lines import read_json_lines
from semmim_jax.data.readers.karpathy import read_karpathy
from semmim_jax.data.readers.nlvr2 import read_nlvr2
from semmim_jax.data.readers.visual_genome import read_vg, read_vgqa
from semmim_jax.data.readers.vqa import read_vqa
from semmim_jax.data.records import Source
from semmim_jax.data.shard_format import Manifest
from semmim_jax.data.shards import ShardSource
from semmim_jax.data.tars import TarSource
from semmim_jax.data.tfds import TfdsSource
from semmim_jax.data.unreadable import UnreadableRecord

__all__ = ['UnreadableRecord', 'attribution', 'make_source']

_READERS: dict[str, Callable[..., list[ImageText]]] = {
    'captions': read_captions,
    'albef': read_albef,
    'coco': read_coco,
    'karpathy': read_karpathy,
    'vqa': read_vqa,
    'vg': read_vg,
    'vgqa': read_vgqa,
    'nlvr2': read_nlvr2,
    'jsonl': read_json_lines,
    'easy_vqa': read_easy_vqa,
    'sugarcrepe': read_sugarcrepe,
    'aro': read_aro,
    'winoground': read_winoground,
}
_FORMS = (
    'captions:PATH',
    'albef:FILE',
    'coco:FILE',
    'karpathy:FILE:SPLIT',
    'vqa:QUESTIONS[,ANNOTATIONS]',
    'vg:FILE',
    'vgqa:FILE',
    'nlvr2:FILE',
    'jsonl:FILE',
    'easy_vqa:SPLIT',
    'sugarcrepe:FILE',
    'aro:FILE',
    'winoground:FILE',
    'shards:DIR',
    'tar:GLOB',
    'tfds:DIR:SPLIT',
)


def make_source(spec: str, data_config: DataConfig) -> Source:
    """Makes the source that `spec` names, with its options from `config.data`.

    Raises ValueError for an unknown name, and what the source raises for its own options.
    """
    names, weights = _split(spec)
    if all(map(_is_list, names)) and not any(weights):
        return _read_lists(names, data_config)
    parts = [_make_one(name, data_config) for name in names]
    if len(parts) == 1:
        return parts[0]
    if not any(weights):
        return Joined(parts, names=names)
    if not all(weights):
        raise ValueError(f'{spec!r}: give every source a weight, or none')
    return Mixture(parts, names=names, weights=whole_weights(weights))


def attribution(spec: str) -> str:
    """Whose work the images of the source that `spec` names show; '' where nobody knows."""
    return '; '.join(filter(None, dict.fromkeys(map(_credit, _split(spec)[0]))))


def _split(spec: str) -> tuple[list[str], list[str]]:
    """Names of the sources of a spec, and their weights as written, '' where there is none."""
    parts = [part.partition(' @ ') for part in spec.split(' + ')]
    return [name.strip() for name, _, _ in parts], [weight.strip() for _, _, weight in parts]


def _make_one(spec: str, data_config: DataConfig) -> Source:
    name, _, argument = spec.partition(':')
    corpora = installed_corpora()
    if _is_list(spec):
        return _read_lists([spec], data_config)
    if argument and name == 'shards':
        return ShardSource(
            argument,
            decoder=data_config.decoder,
            max_pixels=data_config.max_pixels,
            index=data_config.shards.index,
        )
    if argument and name == 'tar':
        return TarSource(
            argument,
            text=data_config.tars.text,
            cache=data_config.tars.cache,
            decoder=data_config.decoder,
            max_pixels=data_config.max_pixels,
        )
    if argument and name == 'tfds':
        return TfdsSource(
            argument,
            image=data_config.tfds.image,
            text=data_config.tfds.text,
            decoder=data_config.decoder,
            max_pixels=data_config.max_pixels,
            index=data_config.shards.index,
        )
    if argument and name in corpora:
        return corpora[name].make(argument, data_config)
    known = (*_FORMS, *(f'{name}:SPLIT' for name in corpora))
    raise ValueError(f'unknown source {spec!r}: known are {", ".join(known)}')


def _is_list(spec: str) -> bool:
    name, _, argument = spec.partition(':')
    return name in _READERS and bool(argument)


def _read_lists(specs: list[str], data_config: DataConfig) -> ImageTexts:
    records = []
    for spec in specs:
        name, _, argument = spec.partition(':')
        on_disk(argument)
        read = _READERS[name](argument, image_root=data_config.captions.image_root)
        records += without_empty(read, max_share=data_config.max_replaced)
    return ImageTexts(records, decoder=data_config.decoder, max_pixels=data_config.max_pixels)


def _credit(spec: str) -> str:
    name, _, place = spec.partition(':')
    if name == 'shards':
        try:
            return Manifest.read(place).attribution
        except ValueError:  # they are elsewhere now
            return ''
    corpus = installed_corpora().get(name)
    return corpus.attribution if corpus else ''
