"""How well cheap looks rank prompts, and whether a race of looks finds the best of 64: against drawing all of them.

    python -m benchmarks.looks STYLE … [--prompts 64] [--generator FOLDER]

Needs styles that were described (`fashion-pipeline run --mode prompt`). Prompts are put together at random from the
vocabulary and drawn with full steps and few, each with 16 common seeds; others again with full steps are the truth that
all rungs are compared with. `--generator` takes another base, such as a published version. On two cores a style's
prompts take about a quarter of an hour; those of the first style serve the others.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.prompts.formats import Candidate, compose
from fashion_pipeline.core.prompts.growing import GROWN, GROWN_SURVIVORS, RUNGS, race, race_cost, words_of
from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.core.prompts.search import seed_for
from fashion_pipeline.core.rows import Role
from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import search_photos
from fashion_pipeline.stages.prompts.looks import look_steps
from fashion_pipeline.store.store import Store

IMAGES = RUNGS[-1]


def main() -> None:
    """Draw, then print a table for each style."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", nargs="+")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--generator", type=Path)
    given = parser.parse_args()
    settings = read_settings()
    store, models = Store(settings.data), Models.of(settings)
    prompts = random_prompts(models, given.prompts)
    full, few = models.profile.generation.steps, look_steps(models.profile)
    embeddings = {
        (steps, purpose): _drawn(models, given.generator, prompts, steps, purpose)
        for steps, purpose in ((full, "truth"), (full, "looks"), (few, "looks"))
    }
    for style in given.styles:
        catalog = store.records.latest("catalog", style)
        rows = store.features.index(style, Role.ENCODER, models.fingerprint("encoder"))
        photos = rows.rows([photo.id for photo in search_photos(store, catalog)]).mean(axis=0)
        cosines = {key: images @ photos for key, images in embeddings.items()}
        print(_table(style, cosines, prompts, full, few), flush=True)


def random_prompts(models: Models, count: int) -> list[Candidate]:
    """Random combinations: a garment, and of each other facet a word or none."""
    rng, fits = random.Random(0), prompt_fits(models)
    by_facet: dict[str, list[Attribute]] = {}
    for word in words_of(models.vocabulary(), "clothing"):
        by_facet.setdefault(word.facet, []).append(word)
    chosen: dict[str, Candidate] = {}
    while len(chosen) < count:
        values = [
            rng.choice(words)
            for facet, words in by_facet.items()
            if facet == "garment" or rng.random() < 1 / len(by_facet)
        ]
        candidate = compose(GROWN, "", values, fits)
        chosen[candidate.id] = candidate
    return list(chosen.values())


def _drawn(
    models: Models, generator: Path | None, prompts: list[Candidate], steps: int, purpose: str
) -> NDArray[np.float32]:
    """(prompts, IMAGES, d) unit embeddings by the encoder."""
    drawing = models.profile.generation
    seeds = [seed_for(purpose, number) for number in range(IMAGES)]
    side = drawing.image_size
    requests = [
        Request(each.prompt, seed=seed, steps=steps, guidance=drawing.guidance, width=side, height=side)
        for each in prompts
        for seed in seeds
    ]
    with models.generator(generator) as drawer, models.encoder() as encoder:
        images = {drawn.index: drawn.image for drawn in drawer.draw(requests)}
        rows = encoder.embed_images(images[place] for place in range(len(requests)))
    return rows.reshape(len(prompts), IMAGES, -1)


def _table(
    style: str, cosines: dict[tuple[int, str], NDArray[np.float32]], prompts: list[Candidate], full: int, few: int
) -> str:
    truth = cosines[full, "truth"]
    means = truth.mean(axis=1)
    closest = np.argsort(-means)[: len(prompts) // 4]
    lines = [f"{style}: {len(prompts)} prompts, truth {full} steps x {IMAGES} other seeds", ""]
    lines += ["| steps x seeds | steps an image set takes | rank correlation | among the closest quarter |"]
    lines += ["| --- " * 4 + "|"]
    for steps in (few, full):
        for images in RUNGS:
            scores = cosines[steps, "looks"][:, :images].mean(axis=1)
            every, best = (spearmanr(scores[at], means[at]).statistic for at in (np.arange(len(prompts)), closest))
            lines.append(f"| {steps} x {images} | {steps * images} | {every:.2f} | {best:.2f} |")
    place = {each.id: at for at, each in enumerate(prompts)}
    raced = race(
        prompts,
        lambda asked, images: [float(cosines[few, "looks"][place[each.id], :images].mean()) for each in asked],
        GROWN_SURVIVORS,
    )
    found, best = place[raced[0].candidate.id], int(np.argmax(means))
    error = float(np.std(truth[best], ddof=1) / np.sqrt(IMAGES))
    share = race_cost(len(prompts), GROWN_SURVIVORS) * few / (len(prompts) * IMAGES * full)
    lines += [
        "",
        f"The race took {share:.0%} of the denoising steps of drawing all, and found {prompts[found].prompt!r}, "
        f"{means[found]:.3f}; the best of all is {prompts[best].prompt!r}, {means[best]:.3f}, "
        f"standard error {error:.3f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
