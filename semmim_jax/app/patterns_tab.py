"""The tab Patterns: a click on a patch shows its cluster, its words and its neighbours."""

import gradio as gr

from semmim_jax.app import fragments, scripts
from semmim_jax.app.events import Desk, follow, listen, with_message
from semmim_jax.app.patterns import code_picture, grid_page, pattern_page


def add(desk: Desk) -> gr.Tab:
    """Lays out the tab."""
    explorer = desk.explorer
    model, table = explorer.model, explorer.table
    with gr.Tab('Patterns', elem_id='patterns_tab') as tab:
        gr.HTML(fragments.text(about(explorer), kind='note'))
        grid = gr.HTML(js_on_load=scripts.PICK, elem_id='grid')
        pattern = gr.HTML(elem_id='pattern')

        def coded(picture, caption: str):
            # Codes that were read with words and without them cannot be compared.
            read = caption if table is None or table.words else ''
            return code_picture(model, explorer.pixels(picture), read)

        follow(desk, tab, lambda *inputs: grid_page(coded(*inputs), chosen=None), [], grid)
        clear = lambda: ''
        listen([desk.picture.change, desk.caption.submit], clear, [], pattern)

        def on_pick(picture, caption: str, event: gr.EventData):
            @with_message
            def both() -> str:
                number = int((event._data or {}).get('number', -1))
                found = coded(picture, caption)
                if not 0 <= number < len(found.codes):
                    raise ValueError('this is no patch of the picture')
                pages.append(grid_page(found, chosen=number))
                place = dict(folder=explorer.folder, settings=model.config.data)
                return pattern_page(found, number, table, picture=picture, **place)

            pages: list[str] = []
            said_of_pattern = both()
            return pages[0] if pages else gr.skip(), said_of_pattern

        listen([grid.pick], on_pick, [desk.picture, desk.caption], [grid, pattern])
    return tab


def about(explorer) -> str:
    """What the patterns are those of."""
    table, note = explorer.table, explorer.notes.get('patterns')
    if note:
        return f'No patterns of the folder: {note}.'
    if table is None:
        return 'Start the app with --images=FOLDER to see clusters and neighbours.'
    size = (table.codes.nbytes + table.features.nbytes) / 2**20
    how = 'with their captions' if table.words else 'without captions'
    held = f'{len(table.paths):,} of {table.of:,} pictures, read {how}; {size:,.0f} MiB.'
    return f'Patterns of {held}'
