"""A worker that writes down what it begins and ends, so that a test can kill it in the middle and count."""

import os
import time
from pathlib import Path

from fashion_pipeline.stages.drawing.on_ray import Worker

SECONDS = 0.3


def log_of(machine: Path) -> Path:
    return machine.with_name("counted.txt")


class Counted(Worker):
    def embed(self, number, role, piece):
        return self._counted(number, lambda: super(Counted, self).embed(number, role, piece))

    def draw(self, number, pipeline, requests):
        return self._counted(number, lambda: super(Counted, self).draw(number, pipeline, requests))

    def _counted(self, number, work):
        self._note("begins", number)
        time.sleep(SECONDS)
        found = work()
        self._note("ends", number)
        return found

    def _note(self, what, number):
        with log_of(self._models.machine).open("a") as log:
            log.write(f"{what} {number} {os.getpid()}\n")
