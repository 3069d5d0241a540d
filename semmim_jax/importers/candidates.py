"""What a source gives, before images and texts are checked: candidates, and what it left out."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from semmim_jax.data.records import Texts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image of a source, a pair of them, or a clip, with its texts.

    Attributes:
      key: unique in the set.
      images: path of a file, bytes of one, or pixels uint8 [h, w, 3], which are stored as they are;
        or
      frames: of a clip, in order, each as an image, and
      times: the second of each; or
      video: path of the file of a clip, and
      span: the seconds of it that are meant; () for all.
      where: file and line or id, for whoever looks for it.
      captions: as the source has them; or
      entries: texts of each question or statement.
      source_id: the source's own id of the image.
      meta: whatever else is to be kept.
      exact: whether captions are stored as they are, repeats too: of a corpus that is made.
    """

    key: str
    where: str
    images: tuple[str | bytes | np.ndarray, ...] = ()
    frames: tuple[str | bytes | np.ndarray, ...] = ()
    times: tuple[float, ...] = ()
    video: str = ''
    span: tuple[float, ...] = ()
    captions: tuple[str, ...] = ()
    entries: tuple[Texts, ...] = ()
    source_id: int | str | None = None
    meta: Mapping[str, object] = dataclasses.field(default_factory=dict)
    exact: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What does not get into the set, a line of dropped.jsonl.

    Attributes:
      key: as a candidate's; '' where it is not known.
      reason: a few words that are the same for all of the kind.
      where: file and line or id, and what is wrong with it.
    """

    key: str
    reason: str
    where: str


class Incomplete(ValueError):
    """A container ends before its end. The message names file and place."""


class DropReason(ValueError):
    """Why a candidate is dropped: `reason`, and a message for people."""

    def __init__(self, reason: str, message: str = ''):
        super().__init__(message or reason)
        self.reason = reason
