"""The tab Ask: a caption, an answer to a question, or what a prompt asks for."""

import gradio as gr

from semmim_jax.app import fragments
from semmim_jax.app.asking import KINDS, about_score, ask, kinds_of
from semmim_jax.app.events import Desk, listen, with_message


def add(desk: Desk) -> gr.Tab:
    """Lays out the tab; what the run cannot do is said when it is asked for."""
    explorer = desk.explorer
    can = kinds_of(explorer.model.config)
    with gr.Tab('Ask', elem_id='ask_tab') as tab:
        kind = gr.Radio(
            list(KINDS), value=can[0] if can else KINDS[0], label='Ask for', elem_id='kind'
        )
        words = gr.Textbox(label='Question or prompt', elem_id='words')
        go = gr.Button('Ask', variant='primary', elem_id='ask')
        answer = gr.HTML(elem_id='answer')

        @with_message
        def show(picture, kind: str, words: str) -> str:
            pixels = explorer.pixels(picture)
            written = ask(explorer.model, pixels, kind=kind, words=words)
            return fragments.text(written.text or '(nothing)', kind='answer') + fragments.text(
                about_score(explorer.model.config, written.score), kind='note'
            )

        inputs = [desk.picture, kind, words]
        listen([go.click, words.submit], show, inputs, answer)
    return tab
