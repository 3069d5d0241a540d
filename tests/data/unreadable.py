"""Sources of which some records cannot be read."""

import json

from PIL import Image

from semmim_jax.data.readers import sources
from semmim_jax.data.unreadable import UnreadableRecord


class Broken:
    """Another source of which the records at `broken` cannot be read. Picklable."""

    def __init__(self, source, broken):
        self.source, self.broken = source, frozenset(broken)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableRecord(f'file {index}.jpg: corrupt')
        return self.source[index]


def pictures(folder, data_config, broken):
    """Forty image files of which those at `broken` are cut off. For workers, which cannot import
    the classes of a test."""
    for i in range(40):
        file = folder / f'{i}.png'
        Image.new('RGB', (20, 20), (i, 2 * i, 3 * i)).save(file)
        if i in broken:
            file.write_bytes(file.read_bytes()[:40])
    entries = [{'image': f'{i}.png', 'caption': f'picture {i}'} for i in range(40)]
    (folder / 'list.json').write_text(json.dumps(entries))
    return sources.make_source(f'captions:{folder}/list.json', data_config)
