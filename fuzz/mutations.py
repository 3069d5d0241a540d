"""How fuzz/files.py and fuzz_runs.py change good input into bad."""

from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30)


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    """`raw` after one to four changes, each of a kind that files suffer or that attackers try."""
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        end = min(len(raw), place + data.draw(st.integers(1, 16)))
        match data.draw(st.sampled_from(['flip', 'cut', 'drop', 'insert', 'number', 'repeat'])):
            case 'flip' if raw:
                bit = 1 << data.draw(st.integers(0, 7))
                raw = raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]
            case 'cut':
                raw = raw[:place]
            case 'drop':
                raw = raw[:place] + raw[end:]
            case 'insert':
                raw = raw[:place] + data.draw(st.binary(max_size=16)) + raw[place:]
            case 'number':
                number = data.draw(st.sampled_from(NUMBERS))
                size = data.draw(st.sampled_from([1, 2, 4]))
                packed = (number % 256**size).to_bytes(
                    size, data.draw(st.sampled_from(['big', 'little']))
                )
                raw = raw[:place] + packed + raw[place + size :]
            case 'repeat':
                raw = raw[:place] + raw[place:end] * data.draw(st.sampled_from([2, 100, 10_000]))
    return raw


def json_values(leaves: st.SearchStrategy) -> st.SearchStrategy:
    """Nested JSON values whose leaves are drawn from `leaves` or anything."""
    plain = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
    return st.recursive(
        plain | leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=4) | st.sampled_from(['image', 'caption']), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
