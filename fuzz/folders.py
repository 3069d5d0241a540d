"""Fuzzing of folders of pictures and of what lies beside them: stamps, drawings, data sets."""

import dataclasses
import functools
import json
import pathlib
import tempfile

from hypothesis import strategies as st

from fuzz.files import changed, pictures
from fuzz.importers import OPTIONS, check_records
from fuzz.mutations import mutated
from semmim_jax.importers.folders import read_folder
from semmim_jax.importers.openclipart import read_openclipart
from semmim_jax.importers.stamps import read_stamps
from semmim_jax.importers.tfds_records import plan_tfds, read_tfds
from tests.importers import fixtures


def openclipart(data: st.DataObject, folder: pathlib.Path) -> None:
    """A picture and the SVG that describes it; the SVG, or now and then the picture, is damaged."""
    declared = data.draw(
        st.sampled_from(['', '', '<!ENTITY a "b">', '<!ENTITY a SYSTEM "/etc/passwd">'])
    )
    title = data.draw(st.sampled_from(['An apple', '&a;', '&#0;', '<![CDATA[a]]>']))
    svg = fixtures.clipart_svg(title=title, description='red', keywords=('fruit', 'food'))
    svg = svg.replace('svg10.dtd">', f'svg10.dtd" [{declared}]>' if declared else 'svg10.dtd">')
    encoding = data.draw(st.sampled_from(['utf-8', 'utf-16', 'latin-1', 'utf-7', 'none-such']))
    raw = svg.replace('UTF-8', encoding).encode('utf-16' if encoding == 'utf-16' else 'utf-8')
    picture = data.draw(st.sampled_from(pictures()))
    damages_picture = not data.draw(st.integers(0, 3))
    fixtures.write(folder / 'svg/a.svg', raw if damages_picture else mutated(data, raw))
    fixtures.write(folder / 'png/a.png', mutated(data, picture) if damages_picture else picture)
    items = list(read_openclipart(str(folder), OPTIONS))
    assert len(items) == 1
    assert not any('root:' in text for text in getattr(items[0], 'captions', ()))
    check_records(items)


def stamps(data: st.DataObject, folder: pathlib.Path) -> None:
    """A stamp as picture or as drawing; it or its sentences are damaged."""
    texts = 'An apple.\nde.utf8=Ein Apfel.\nja.utf8=\u308a\u3093\u3054\u3002\n'.encode()
    files = {'a.png': data.draw(st.sampled_from(pictures())), 'a.txt': texts}
    if data.draw(st.booleans()):
        files = {'a.svg': fixtures.DRAWING.encode(), 'a.txt': texts}
    damaged = data.draw(st.sampled_from(sorted(files)))
    for name, content in files.items():
        (folder / name).write_bytes(mutated(data, content) if name == damaged else content)
    items = list(read_stamps(str(folder), OPTIONS))
    assert len(items) == 1
    check_records(items)


def pictures_folder(data: st.DataObject, folder: pathlib.Path) -> None:
    """Folders of classes, or a picture with its text beside it."""
    place = folder / data.draw(st.sampled_from(['', 'cat']))
    place.mkdir(exist_ok=True)
    (place / 'a.png').write_bytes(mutated(data, data.draw(st.sampled_from(pictures()))))
    if data.draw(st.booleans()):
        (place / 'a.txt').write_bytes(mutated(data, b'a red square'))
    check_records(read_folder(str(folder), OPTIONS))


@functools.cache
def tfds_folder() -> dict[str, bytes]:
    """What tensorflow-datasets writes, by path below NAME/VERSION."""
    from tests.data import tfds_sets

    with tempfile.TemporaryDirectory() as root:
        written = pathlib.Path(tfds_sets.write(root))
        return {path.name: path.read_bytes() for path in written.iterdir()}


def tfds(data: st.DataObject, folder: pathlib.Path) -> None:
    """A data set of the package, one file of which is damaged."""
    place = folder / 'written' / '1.0.0'
    place.mkdir(parents=True)
    damaged = data.draw(st.sampled_from(sorted(tfds_folder())))
    for name, content in tfds_folder().items():
        if name == damaged:
            changes = name.endswith('.json') and data.draw(st.booleans())
            value = changed(data, json.loads(content)) if changes else None
            content = json.dumps(value).encode() if changes else mutated(data, content)
        (place / name).write_bytes(content)
    options = dataclasses.replace(OPTIONS, image='image')
    for piece in plan_tfds([str(place)], options):
        check_records(read_tfds(piece, options))
