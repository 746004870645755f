"""What goes on beside the work: looks, leases and copies every few seconds."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(do: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call a function in a thread every so many seconds while the block runs, until it returns True."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            if do() is True:
                return

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
