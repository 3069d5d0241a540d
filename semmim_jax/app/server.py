"""The page as a whole, and the server that gives it: on this machine, without any other."""

import html
import ipaddress
import pathlib
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from semmim_jax.app import (
    ask_tab,
    compare_tab,
    explain_tab,
    mask_tab,
    patterns_tab,
    picture_panel,
    search_tab,
)
from semmim_jax.app.events import Desk
from semmim_jax.app.explorer import Explorer
from semmim_jax.app.pictures import MAX_BYTES

MAX_BODY = 2 * MAX_BYTES  # of a request: a file in base64, and what goes with it
SESSIONS = 32  # whose pictures are held in memory
# The browser itself refuses any other address, whatever a text or a name holds.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self'; frame-ancestors 'none'; form-action 'none'"
)
_CLOSED = ('/gradio_api/upload', '/gradio_api/proxy=')  # write files to disk; fetch from elsewhere


def build(explorer: Explorer) -> gr.Blocks:
    """The page: the picture and its caption to the left, tabs to the right."""
    with gr.Blocks(
        title=f'{explorer.name}: explorer', analytics_enabled=False, fill_width=True
    ) as blocks:
        gr.HTML(f'<h2>{html.escape(explorer.name)}</h2>')
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                picture, caption, shown = picture_panel.add(explorer)
            with gr.Column(scale=3, min_width=480):
                active = gr.State('Search')
                desk = Desk(explorer, picture, caption, active)
                with gr.Tabs():
                    tabs = [
                        search_tab.add(desk, shown),
                        ask_tab.add(desk),
                        explain_tab.add(desk),
                        mask_tab.add(desk),
                        patterns_tab.add(desk),
                        compare_tab.add(desk),
                    ]
        for tab in tabs:
            name = tab.label
            tab.select(lambda name=name: name, None, active, queue=False, api_visibility='private')
    return blocks


def launch(explorer: Explorer, *, host: str, port: int, wait: bool = True) -> str:
    """Serves the page; ends with the process, or when it is interrupted.

    Args:
      explorer: open.
      host: address to listen at; of this machine alone unless the user says otherwise.
      port: 0 for any that is free.
      wait: for the interruption; else the address is returned at once.

    Returns:
      The page's address.

    Raises:
      OSError: the port is taken.
    """
    blocks = build(explorer)
    middleware = [Middleware(_Guard)]
    if is_loopback(host):  # no page of another site reaches the app by a name that leads here
        names = ['localhost', '127.0.0.1', host]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        inbrowser=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
        css=(pathlib.Path(__file__).parent / 'page.css').read_text(encoding='utf-8'),
        app_kwargs=dict(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None),
    )
    print(f'open {address}', flush=True)
    if wait:
        blocks.block_thread()
    return address


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


class _Guard:
    """Refuses what the app does not use and what is too long; adds the content policy."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        headers = dict(scope['headers'])
        if scope['path'].startswith(_CLOSED):
            await PlainTextResponse('not served', 404)(scope, receive, send)
            return
        length = headers.get(b'content-length', b'0')
        if b'transfer-encoding' in headers or not length.isdigit() or int(length) > MAX_BODY:
            await PlainTextResponse('too long', 413)(scope, receive, send)
            return

        async def send_with_policy(message: Any) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] += [(b'content-security-policy', _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, send_with_policy)
