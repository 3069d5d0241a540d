"""How the tabs hear of events: one computation at a time, mistakes as one line on the page."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from semmim_jax.app import fragments
from semmim_jax.app.explorer import Explorer


class Desk(NamedTuple):
    """What all tabs share.

    Attributes:
      explorer: the runs and the folder.
      picture: state that holds the `Picture` that is looked at, on the server alone.
      caption: text box.
      active: state that holds the name of the tab that is shown.
    """

    explorer: Explorer
    picture: gr.State
    caption: gr.Textbox
    active: gr.State


def listen(
    triggers: Sequence[Callable[..., Any]],
    fn: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Any,
    **options: Any,
) -> None:
    """Calls `fn` after each of some events; all such calls wait for each other.

    Args:
      triggers: of components, as `button.click`.
      fn, inputs, outputs, options: as Gradio's events take them.
    """
    shared = dict(concurrency_limit=1, concurrency_id='model', api_visibility='private')
    options = dict(show_progress='minimal', trigger_mode='always_last', **shared) | options
    for trigger in triggers:
        trigger(fn, list(inputs), outputs, **options)


def with_message(fn: Callable[..., str]) -> Callable[..., str]:
    """`fn`, which gives HTML, with a ValueError as one line on the page."""

    @functools.wraps(fn)
    def run(*arguments: Any) -> str:
        try:
            return fn(*arguments)
        except (ValueError, OSError) as error:
            return fragments.message(error)

    return run


def follow(
    desk: Desk,
    tab: gr.Tab,
    fn: Callable[..., str],
    inputs: Sequence[Any],
    output: gr.HTML,
    *,
    also: Sequence[Any] = (),
) -> None:
    """Calls `fn` when its tab is opened and, while it is open, at every change.

    Args:
      desk: its picture and caption are what changes.
      tab: that shows the result.
      fn: gets the picture, the caption and what `inputs` hold; gives HTML.
      inputs: further components.
      output: for the HTML.
      also: further events, of the tab's own controls.
    """
    name, shown = tab.label, with_message(fn)
    values = [desk.picture, desk.caption, *inputs]
    listen([tab.select, *also], shown, values, output)

    def if_open(active: str, *arguments: Any) -> Any:
        return shown(*arguments) if active == name else gr.skip()

    changes = [desk.picture.change, desk.caption.submit]
    listen(changes, if_open, [desk.active, *values], output)
