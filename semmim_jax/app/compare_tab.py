"""The tab Compare: two runs on one picture and caption."""

import gradio as gr

from semmim_jax.app import fragments, scripts
from semmim_jax.app.comparing import page, side
from semmim_jax.app.events import Desk, follow


def add(desk: Desk) -> gr.Tab:
    """Lays out the tab."""
    explorer = desk.explorer
    with gr.Tab('Compare', elem_id='compare_tab') as tab:
        if explorer.other is None:
            gr.HTML(
                fragments.text('A second workdir is compared: start the app with --other=WORKDIR.')
            )
            return tab
        shown = gr.HTML(js_on_load=scripts.WORDS, elem_id='sides')
        runs = ((explorer.model, explorer.name), (explorer.other, explorer.other_name))

        def show(picture, caption: str) -> str:
            pixels = explorer.pixels(picture)
            return page([side(model, name, pixels, caption) for model, name in runs])

        follow(desk, tab, show, [], shown)
    return tab
