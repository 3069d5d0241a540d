"""Writes every golden of this folder from PyTorch and transformers, without a network.

    python tests/goldens/make_goldens.py [folder]

One line a file. The same versions give the same bytes. Tests read the .npz; they never need torch.
"""

import os
import sys

import golden_dvae
import golden_encodings
import golden_heads
import golden_losses
import golden_scl
import golden_towers
from transformers.utils import logging


def main(folder):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.makedirs(folder, exist_ok=True)
    for module in (
        golden_towers,
        golden_heads,
        golden_losses,
        golden_encodings,
        golden_dvae,
        golden_scl,
    ):
        module.write_all(folder)


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
