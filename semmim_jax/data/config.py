"""The part of `config.data` that data/ reads, by type; configs/*.py say what each field means."""

from typing import Any, Protocol

from semmim_jax.data.transforms import Augment


class CaptionsConfig(Protocol):
    """`config.data.captions`."""

    image_root: str


class LexiconConfig(Protocol):
    """`config.data.lexicon`."""

    captions: int
    npmi: float
    min_count: int
    max_tokens: int


class ShardsConfig(Protocol):
    """`config.data.shards`."""

    index: str


class TarsConfig(Protocol):
    """`config.data.tars`."""

    text: str
    cache: str


class TfdsConfig(Protocol):
    """`config.data.tfds`."""

    image: str
    text: str


class DataConfig(Protocol):
    """`config.data`, an ml_collections.ConfigDict, which checks no types itself."""

    image_size: int
    patch_size: int
    max_tokens: int
    max_words: int
    clean_text: bool
    decoder: str
    max_pixels: int
    max_replaced: float
    workers: int
    prefetch: int
    captions: CaptionsConfig
    shards: ShardsConfig
    tars: TarsConfig
    tfds: TfdsConfig
    augment: Augment
    lexicon: LexiconConfig

    def __getitem__(self, name: str) -> Any: ...  # whatever else a corpus or a task has there
