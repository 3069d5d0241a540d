"""The tab Explain: which patches each word of the caption reads."""

import gradio as gr

from semmim_jax.app import scripts
from semmim_jax.app.events import Desk, follow
from semmim_jax.app.word_maps import explain, page


def add(desk: Desk) -> gr.Tab:
    """Lays out the tab: one page, in which the browser alone turns from word to word."""
    explorer = desk.explorer
    with gr.Tab('Explain', elem_id='explain_tab') as tab:
        maps = gr.HTML(js_on_load=scripts.WORDS, elem_id='maps')

        def show(picture, caption: str) -> str:
            pixels = explorer.pixels(picture)
            return page(pixels, explain(explorer.model, pixels, caption))

        follow(desk, tab, show, [], maps)
    return tab
