"""What all of `api` shares: the store and models of this process, and what functions are told and say."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fashion_pipeline.settings import read_settings

if TYPE_CHECKING:
    from fashion_pipeline.stages.drawing.models import Models
    from fashion_pipeline.store.store import Store

Tell = Callable[[str], None]
"""Called with a message for people."""


def open_store() -> "Store":
    """The data root of this process's settings."""
    from fashion_pipeline.store.store import Store

    return Store(read_settings().data)


def open_models() -> "Models":
    """The models of this process's settings."""
    from fashion_pipeline.stages.drawing.models import Models

    return Models.of(read_settings())


def warn(text: str) -> None:
    """Say something to the person at the terminal."""
    print(f"warning: {text}", file=sys.stderr)
