"""Loading a network without what its library says meanwhile.

Progress bars, tables of weights that are not used, a type that was chosen because the processor has no other: they
would stand between the lines of a run.  What matters of them is an error here, or part of the encoder's spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR


@contextmanager
def loading_quietly() -> Iterator[None]:
    """Keep transformers silent inside the block, and as talkative as it was afterwards."""
    from transformers.utils import logging

    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def loading_quietly_in_ctranslate2() -> Iterator[None]:
    """Keep CTranslate2 to errors inside the block, and as talkative as it was afterwards."""
    import ctranslate2

    level = ctranslate2.get_log_level()
    ctranslate2.set_log_level(ERROR)
    try:
        yield
    finally:
        ctranslate2.set_log_level(level)
