"""The explorer in the browser: a trained model and a folder of pictures, looked at (docs/app.md).

Files named `*_tab` and `picture_panel` lay out pages, by Gradio; the others hold plain functions,
from pictures and texts to texts and HTML, which need no browser.
"""
