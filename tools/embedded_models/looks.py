"""Draw every word of the embedded vocabulary alone, and write the looks that ship with the embedded models.

    python -m tools.embedded_models.looks WORK [--seeds 16]

WORK is a data root of its own, in which it can be stopped and goes on; one file of looks comes of it. Takes about a
quarter of an hour on one core.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from fashion_pipeline.core.prompts.growing import RUNGS, alone, words_of
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.looks import Looker
from fashion_pipeline.store.looks import LookAt, Looks
from fashion_pipeline.store.storage.files import Files
from fashion_pipeline.store.store import Store

TARGET = PACKAGE / "embedded" / "looks"


def main() -> None:
    """Draw what is not there yet, then write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=RUNGS[-1], choices=RUNGS)
    given = parser.parse_args()
    store, models = Store(given.work), Models("embedded")
    fits, anything = prompt_fits(models), "clothing"  # a style that names no garment rules none out
    words = [candidate for word in words_of(models.vocabulary(), anything) if (candidate := alone(word, fits))]
    with models.generator() as generator, models.encoder() as encoder:
        looker = Looker(store, models.profile, generator, encoder, np.zeros(1, np.float32), print)
        for images in RUNGS[: RUNGS.index(given.seeds) + 1]:
            looker.draw(words, images)
    known = store.looks.read(looker.drawn)
    thumbnails = store.looks.thumbnails(looker.drawn, [word.prompt for word in words])
    wanted = {key: row for key, row in known.items() if key in _keys(words)}
    shutil.rmtree(TARGET, ignore_errors=True)
    fresh = given.work / "shipped"
    shutil.rmtree(fresh, ignore_errors=True)
    Looks(Files(fresh)).add(looker.drawn, wanted, thumbnails)
    shutil.copytree(fresh / "looks", TARGET)
    print(f"{len(wanted)} looks of {len(words)} words in {TARGET}")


def _keys(words: list) -> set[LookAt]:
    return {LookAt(word.prompt, "", images) for word in words for images in RUNGS}


if __name__ == "__main__":
    main()
