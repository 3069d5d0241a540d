"""Caption cleaning, as ALBEF prepares captions for pre-training (docs/method.md section 7)."""

import re

# What BERT's normaliser, as the library has it, takes for Chinese.
CHINESE = (
    '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f'
    '\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f'
)

_CHINESE = re.compile(f'[{CHINESE}]')
_DELETED = ',.\'!?"()*#:;~'
_TABLE = str.maketrans({**dict.fromkeys(_DELETED, ''), '-': ' ', '/': ' '})


def clean_caption(caption: str, *, max_words: int | None) -> str:
    """Lower-case, without punctuation, single spaces, at most `max_words` words (None: all).

    See docs/method.md section 7.

    Deletes , . ' ! ? " ( ) * # : ; ~, turns - and / into spaces and "<person>" into "person". May
    return '' for a caption of punctuation only.
    """
    text = caption.lower().translate(_TABLE).replace('<person>', 'person')
    return ' '.join(text.split()[:max_words])


def part_chinese(text: str) -> str:
    """Spaces around each Chinese character, so that measures over words take it for a word."""
    return _CHINESE.sub(r' \g<0> ', text)
