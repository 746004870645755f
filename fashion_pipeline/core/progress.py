"""How far something long is: said in one form, so that a log can be read and a bar can be drawn."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_SECONDS = 5.0

_FORM = re.compile(r"[^:]+: (?:step )?(?P<done>\d+) of (?P<total>\d+)\b")
"""`original: 64 of 192 images drawn, 2 min left`, `training: step 3 of 100, loss 0.1`."""


@dataclass(frozen=True)
class Progress:
    """How far."""

    done: int
    total: int


class Meter:
    """Says how far something is, every few seconds and at its end, with an estimate of the time left."""

    def __init__(
        self, say: Callable[[str], None], words: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`words` are what is said, with `{}` in the place of the count: `original: {} images drawn`."""
        self._say, self._words, self._total, self._clock = say, words, total, clock
        self._said = clock()
        self._first: tuple[float, int] | None = None
        """When the first ones were done, and how many: what comes in batches has its pace from one to the next."""

    def reach(self, done: int) -> None:
        """So many are done."""
        now = self._clock()
        begun, first = self._first = self._first or (now, done)
        if done >= self._total or now - self._said >= EVERY_SECONDS:
            self._said = now
            message = self._words.format(f"{done} of {self._total}")
            self._say(message + left(now - begun, done - first, self._total - first))


def left(elapsed: float, done: int, total: int) -> str:
    """The time left by the pace so far, as the end of a sentence: `, 3 min left`; empty at both ends."""
    if not 0 < done < total:
        return ""
    return f", {spoken(elapsed / done * (total - done))} left"


def spoken(seconds: float) -> str:
    """A duration for people: 40 s, 3 min, 2 h 10 min."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def progress_in(text: str) -> Progress | None:
    """What a message says of progress; None where it says nothing of it."""
    match = _FORM.match(text)
    if match is None or not int(match["total"]) > 0 or int(match["done"]) > int(match["total"]):
        return None
    return Progress(int(match["done"]), int(match["total"]))
