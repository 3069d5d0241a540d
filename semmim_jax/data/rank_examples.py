"""Examples of a ranking: those of completion; the wrong texts are the other examples'."""

import dataclasses
from typing import ClassVar

from semmim_jax.data.completion_examples import CompletionExamples


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankExamples(CompletionExamples):
    """frames uint8 [f, s, s, 3]; ids int32 [t] of a caption; image_id."""

    kind: ClassVar[str] = 'rank'
