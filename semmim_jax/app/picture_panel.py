"""The panel beside the tabs: upload a picture or pick one of the folder, and caption it."""

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from semmim_jax.app import fragments, scripts
from semmim_jax.app.events import listen
from semmim_jax.app.explorer import Explorer
from semmim_jax.app.pictures import Picture, sized, uploaded
from semmim_jax.app.searching import thumbnail

STRIP = 9  # pictures of the folder that are shown at a time


def add(explorer: Explorer) -> tuple[gr.State, gr.Textbox, gr.HTML]:
    """Lays out the panel.

    Returns:
      The state of the picture, the caption's text box, and the HTML that shows the picture.
    """
    picture = gr.State(None)
    upload = gr.HTML(html_template=scripts.UPLOAD_PAGE, js_on_load=scripts.UPLOAD, elem_id='upload')
    shown = gr.HTML(look(explorer, None), elem_id='picture')
    caption = gr.Textbox(
        label='Caption', placeholder='of the picture; Enter shows it', elem_id='caption'
    )

    def on_upload(event: gr.EventData):
        sent = event._data or {}
        try:
            new = uploaded(
                sent.get('name'),
                sent.get('data'),
                explorer.model.config.data,
                long=bool(sent.get('long')),
            )
            return new, look(explorer, new), gr.skip()
        except ValueError as error:
            return gr.skip(), fragments.message(error), gr.skip()

    listen([upload.upload], on_upload, [], [picture, shown, caption], show_progress='hidden')
    if explorer.folder:
        start = gr.State(0)
        strip = gr.HTML(
            strip_page(explorer, 0), js_on_load=scripts.PICK, elem_id='strip', padding=False
        )
        more = gr.Button('More pictures', size='sm', elem_id='more')

        def turn(first: int):
            first = (first + STRIP) % max(1, len(explorer.paths))
            return first, strip_page(explorer, first)

        listen([more.click], turn, [start], [start, strip])
        listen(
            [strip.pick], picker(explorer), [], [picture, shown, caption], show_progress='hidden'
        )
    return picture, caption, shown


def picker(explorer: Explorer) -> Callable[[gr.EventData], tuple[Any, Any, Any]]:
    """Event of a click on a picture of the folder -> picture, its HTML, its caption."""

    def on_pick(event: gr.EventData):
        try:
            new = explorer.picture_at((event._data or {}).get('picture'))
            known = explorer.captions.get(new.name)
            return new, look(explorer, new), gr.skip() if known is None else known
        except (ValueError, OSError) as error:
            return gr.skip(), fragments.message(error), gr.skip()

    return on_pick


def look(explorer: Explorer, picture: Picture | None) -> str:
    """The picture with its name; raises what `Explorer.pixels` raises."""
    if picture is None:
        return fragments.text('No picture yet.', kind='note')
    pixels = explorer.pixels(picture)
    height, width = pixels.shape[:2]
    shown = fragments.image(sized(pixels), about=picture.name)
    return fragments.figure(shown, picture.name, f'{width} x {height} pixels')


def strip_page(explorer: Explorer, first: int) -> str:
    """Some pictures of the folder, from number `first` on, as buttons."""
    settings = explorer.model.config.data
    buttons = (
        f'<button type="button" class="thumb" data-picture="{html.escape(path)}" '
        f'title="{html.escape(path)}">{thumbnail(explorer.folder / path, settings, about=path)}'
        '</button>'
        for path in explorer.paths[first : first + STRIP]
    )
    count = f'{len(explorer.paths):,} pictures'
    return fragments.beside(buttons, kind='strip') + fragments.text(count, kind='note')
