"""The exporter speaks to developers of PyTorch; its notes, logs and warnings are kept from users of Flyweight."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back warnings, log records and stderr, and let all through again afterwards.

    Errors are exceptions and pass. The switches are of the whole process, so keep the block short.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # torch.export prints the graph it had captured so far to stderr when it fails.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
