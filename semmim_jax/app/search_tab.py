"""The tab Search: pictures of the folder that fit a text, the picture, or both."""

import gradio as gr

from semmim_jax.app import fragments, scripts
from semmim_jax.app.events import Desk, listen, with_message
from semmim_jax.app.picture_panel import picker
from semmim_jax.app.searching import page, search

COUNT = 12


def add(desk: Desk, shown: gr.HTML) -> gr.Tab:
    """Lays out the tab; a click on a hit makes it the picture, which `shown` shows."""
    explorer = desk.explorer
    with gr.Tab('Search', elem_id='search_tab') as tab:
        if explorer.engine is None:
            gr.HTML(fragments.text(_why(explorer.notes.get('search'))))
            return tab
        with gr.Row(equal_height=True):
            words = gr.Textbox(
                label='Text', placeholder='what to look for', elem_id='query', scale=6
            )
            go = gr.Button('Search', variant='primary', elem_id='search', scale=1, min_width=120)
        by_picture = gr.Checkbox(label='and like the picture', elem_id='by_picture')
        hits = gr.HTML(js_on_load=scripts.PICK, elem_id='hits')

        @with_message
        def find(words: str, by_picture: bool, picture) -> str:
            pixels = explorer.pixels(picture) if by_picture else None
            found = search(explorer.engine, words=words, pixels=pixels, count=COUNT)
            return page(*found, folder=explorer.folder, settings=explorer.model.config.data)

        inputs = [words, by_picture, desk.picture]
        listen([go.click, words.submit], find, inputs, hits)
        outputs = [desk.picture, shown, desk.caption]
        listen([hits.pick], picker(explorer), [], outputs, show_progress='hidden')
    return tab


def _why(note: str | None) -> str:
    if note is None:
        return 'Search is in a folder of pictures: start the app with --images=FOLDER.'
    return f'No search: {note}'
