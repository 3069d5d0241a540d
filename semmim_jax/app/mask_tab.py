"""The tab Mask: how ratio, temperature and caption move the mask of pre-training."""

import gradio as gr

from semmim_jax.app import fragments
from semmim_jax.app.events import Desk, follow
from semmim_jax.app.masking import draw_mask, page
from semmim_jax.app.pictures import view_of

HOTTEST = 10.0  # T_mask of the slider's end, at least


def add(desk: Desk) -> gr.Tab:
    """Lays out the tab; the sliders begin at the run's own values."""
    explorer, config = desk.explorer, desk.explorer.model.config
    with gr.Tab('Mask', elem_id='mask_tab') as tab:
        if config.task.name != 'pretrain':
            gr.HTML(
                fragments.text(
                    f'This workdir (task {config.task.name}) draws no masks. Masks need a workdir '
                    'of configs/pretrain.py.'
                )
            )
            return tab
        mim = config.task.mim
        own = min(float(mim.mask_temperature), HOTTEST)
        with gr.Row():
            ratio = gr.Slider(
                0.05,
                0.95,
                value=mim.ratio,
                step=0.05,
                label='ratio',
                elem_id='ratio',
            )
            temperature = gr.Slider(
                0,
                HOTTEST,
                value=own,
                step=0.05,
                elem_id='temperature',
                label=f'T_mask (run: {mim.mask_temperature:g})',
            )
            draw = gr.Slider(0, 20, value=0, step=1, label='draw', elem_id='draw')
        shown = gr.HTML(elem_id='mask')

        def show(picture, caption: str, ratio: float, temperature: float, draw: float) -> str:
            pixels = explorer.pixels(picture)
            mask = draw_mask(
                explorer.model,
                pixels,
                caption,
                ratio=ratio,
                temperature=temperature,
                draw=int(draw),
            )
            return page(view_of(pixels, config.data), mask, kind=mim.masking)

        sliders = [ratio, temperature, draw]
        follow(desk, tab, show, sliders, shown, also=[slider.change for slider in sliders])
    return tab
