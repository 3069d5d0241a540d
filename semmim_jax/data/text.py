"""Caption cleaning, as ALBEF prepares captions for pre-training (docs/method.md section 7)."""

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
