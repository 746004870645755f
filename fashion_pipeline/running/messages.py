"""What a training's process says through Dagster Pipes, read from its file."""

import json
from collections.abc import Iterable, Iterator
from threading import Event
from typing import Any

import dagster as dg
from dagster._utils import tail_file


class WholeLineReader(dg.PipesFileMessageReader):
    """Dagster's reader, but a line is read when it has ended.

    A file can be seen to grow in the middle of a write, where that crosses a page of memory; Dagster 1.13 takes what
    is there for a message, fails, and shows nothing of the process any more.
    """

    def _reader_thread(self, handler: Any, is_resource_complete: Event) -> None:
        for line in whole_lines(tail_file(self._path, is_resource_complete.is_set)):
            handler.handle_message(json.loads(line))


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, none of which is longer than a line. What never ends is left out."""
    line = ""
    for piece in pieces:
        line += piece
        if line.endswith("\n"):
            yield line
            line = ""
