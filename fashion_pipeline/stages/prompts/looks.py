"""Looking at prompts: drawing them with few steps and common seeds, and keeping what the encoder sees."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.progress import Meter
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.growing import (
    GROWN_SURVIVORS,
    MOST_WORDS,
    RUNGS,
    SURVIVORS,
    WORD,
    Seen,
    affordable_field,
    alone,
    grow,
    race,
    race_cost,
    ranked,
)
from fashion_pipeline.core.prompts.requests import Drawing, Request
from fashion_pipeline.core.prompts.search import seed_for
from fashion_pipeline.core.reports.pictures import webp_bytes
from fashion_pipeline.settings import Profile
from fashion_pipeline.stages.drawing.drawing import Report
from fashion_pipeline.stages.drawing.workers import ImageEncoder, ImageGenerator
from fashion_pipeline.stages.prompts.proposing import Proposer
from fashion_pipeline.store.looks import LookAt, LookDrawing
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

CHUNK = 64
"""Images drawn before their looks are kept: what a killed search loses at most."""

THUMBNAIL_SIDE = 64


@dataclass(frozen=True)
class Explored:
    """What looking at prompts came to."""

    seen: list[Seen]
    """Longest looked at first, the closest of them first."""

    @property
    def images(self) -> int:
        """Images that the style's own looks took; those of single words serve all styles, and do not count."""
        return sum(each.images for each in self.seen if each.candidate.strategy != WORD)

    @property
    def candidates(self) -> dict[str, Candidate]:
        """The prompts by id."""
        return {each.candidate.id: each.candidate for each in self.seen}

    def rows(self) -> list[dict[str, object]]:
        """Rows of table `explored`."""
        return [
            {
                "candidate": each.candidate.id,
                "strategy": each.candidate.strategy,
                "prompt": each.candidate.prompt,
                "negative_prompt": each.candidate.negative_prompt,
                "phrases": list(each.candidate.phrases),
                "parent": each.candidate.parent,
                "images": each.images,
                "score": each.score,
            }
            for each in self.seen
        ]


class Looker:
    """Draws prompts with few steps and common seeds, once for a base, and scores them for a style."""

    def __init__(
        self,
        store: Store,
        profile: Profile,
        generator: ImageGenerator,
        encoder: ImageEncoder,
        style: NDArray[np.float32],
        report: Report,
    ) -> None:
        """`style` is (d,), the mean of the unit embeddings of its search photos."""
        self._looks, self._generator, self._encoder = store.looks, generator, encoder
        self._style, self._report = style, report
        self.drawn = drawn_with(profile, generator.identity().generator, encoder.fingerprint)
        self._sample_steps = profile.generation.steps
        self._known = store.looks.read(self.drawn, profile.looks.folder)

    def scores(self, candidates: Sequence[Candidate], images: int) -> list[float]:
        """Mean cosine of each prompt's first `images` images to the style's photos; what is not there yet is drawn."""
        self.draw(candidates, images)
        return [float(self._known[_key(each, images)] @ self._style) for each in candidates]

    def announce(self, words: Sequence[Candidate]) -> None:
        """Say what drawing the words costs where that was not done yet."""
        new = sum(_key(word, RUNGS[0]) not in self._known for word in words)
        if new:
            steps = race_cost(new, SURVIVORS) * self.drawn.steps
            self._report(
                f"{new} words are drawn once for this generator and serve all styles: about {steps:,} denoising steps, "
                f"as many as {-(-steps // self._sample_steps):,} samples take"
            )

    def draw(self, candidates: Sequence[Candidate], images: int) -> None:
        """Draw the first `images` images of each prompt that were not drawn before."""
        keys = dict.fromkeys(_key(each, images) for each in candidates)
        missing = [key for key in keys if key not in self._known]
        meter = Meter(self._report, f"looks: {{}} prompts drawn with {images} seeds", len(missing))
        for done in self._draw(missing):
            meter.reach(done)

    def _draw(self, missing: Sequence[LookAt]) -> Iterator[int]:
        """Draw looks and keep them chunk by chunk; yields how many are there."""
        waiting, done = list(missing), 0
        while waiting:
            chunk: list[LookAt] = []
            while waiting and (not chunk or sum(map(self._new_images, [*chunk, waiting[0]])) <= CHUNK):
                chunk.append(waiting.pop(0))
            self._draw_chunk(chunk)
            done += len(chunk)
            yield done

    def _draw_chunk(self, chunk: Sequence[LookAt]) -> None:
        seeds = [(key, number) for key in chunk for number in range(self._before(key), key.images)]
        images: dict[int, Image.Image] = {}
        for drawn in self._generator.draw([self._request(key, number) for key, number in seeds]):
            images[drawn.index] = drawn.image
        rows = self._encoder.embed_images(images[place] for place in range(len(seeds)))
        sums = {key: self._sum_before(key, rows.shape[1]) for key in chunk}
        for (key, _), row in zip(seeds, rows, strict=True):
            sums[key] = sums[key] + row
        means = {key: np.asarray(total / key.images, np.float32) for key, total in sums.items()}
        firsts = {
            key.prompt: webp_bytes(images[place], THUMBNAIL_SIDE)
            for place, (key, number) in enumerate(seeds)
            if number == 0 and not key.negative_prompt
        }
        self._looks.add(self.drawn, means, firsts)
        self._known |= means

    def _before(self, key: LookAt) -> int:
        """Images of a prompt that an earlier, shorter look rests on."""
        fewer = (rung for rung in reversed(RUNGS) if rung < key.images)
        return next((rung for rung in fewer if LookAt(key.prompt, key.negative_prompt, rung) in self._known), 0)

    def _new_images(self, key: LookAt) -> int:
        return key.images - self._before(key)

    def _sum_before(self, key: LookAt, dimensions: int) -> NDArray[np.float32]:
        before = self._before(key)
        if not before:
            return np.zeros(dimensions, np.float32)
        return before * self._known[LookAt(key.prompt, key.negative_prompt, before)]

    def _request(self, key: LookAt, number: int) -> Request:
        side = self.drawn.side
        return Request(
            prompt=key.prompt,
            negative_prompt=key.negative_prompt,
            seed=seed_for("looks", number),
            steps=self.drawn.steps,
            guidance=self.drawn.guidance,
            width=side,
            height=side,
        )


def _key(candidate: Candidate, images: int) -> LookAt:
    return LookAt(candidate.prompt, candidate.negative_prompt, images)


def most_telling(words: Sequence[Attribute], closeness: Callable[[Sequence[str]], Sequence[float]]) -> list[Attribute]:
    """The words to draw: all of them, or of a large vocabulary the MOST_WORDS closest to the photos by text."""
    if len(words) <= MOST_WORDS:
        return list(words)
    scores = closeness([word.phrase for word in words])
    return [word for word, _ in sorted(zip(words, scores, strict=True), key=lambda each: -each[1])[:MOST_WORDS]]


def drawn_with(profile: Profile, generator: str, encoder: str) -> LookDrawing:
    """How a profile's looks are drawn."""
    drawing = profile.generation
    return LookDrawing(generator, encoder, look_steps(profile), drawing.guidance, drawing.image_size)


def look_thumbnails(store: Store, profile: Profile, searched: Record, prompts: Sequence[str]) -> dict[str, bytes]:
    """Prompt → WebP of the first image that it drew when a search looked at it; empty for searches of before."""
    made_of = searched.made_of
    if "look steps" not in made_of:
        return {}
    drawing = Drawing(**made_of["drawing"])
    drawn = LookDrawing(
        made_of["generator"], made_of["encoder"], made_of["look steps"], drawing.guidance, drawing.image_size
    )
    return store.looks.thumbnails(drawn, prompts, profile.looks.folder)


def look_steps(profile: Profile) -> int:
    """Denoising steps of a look: what the profile says, or a third of those of a sample."""
    return profile.looks.steps or max(2, -(-profile.generation.steps // 3))


def explore(
    looker: Looker,
    written: Sequence[Candidate],
    words: Sequence[Attribute],
    subject: str,
    fits: Callable[[str], bool],
    images: int,
    proposer: Proposer | None = None,
) -> Explored:
    """Look at every word alone, at the prompts that were written, and at what grows from the closest of both.

    `images` is the budget of looks for the written and the grown prompts, `written` those that come first if not all
    can be paid. With a `proposer` half of what the written ones leave is kept for what it proposes. Nothing is looked
    at where the budget could not pay for one prompt.
    """
    if images < RUNGS[-1]:
        return Explored([])
    single = {candidate.id: (candidate, word) for word in words if (candidate := alone(word, fits))}
    looker.announce([candidate for candidate, _ in single.values()])
    seen = race([candidate for candidate, _ in single.values()], looker.scores, SURVIVORS)
    closest_words = [single[each.candidate.id][1] for each in seen]
    own = list(written)[: affordable_field(images, GROWN_SURVIVORS, most=len(written))]
    left = images - race_cost(len(own), GROWN_SURVIVORS)
    seen = ranked([*seen, *race(own, looker.scores, GROWN_SURVIVORS)])
    for_proposals = left // 2 if proposer else 0
    seen = grow(seen, closest_words, subject, fits, looker.scores, left - for_proposals)
    return Explored(_proposed(looker, seen, proposer, subject, fits, for_proposals) if proposer else seen)


def _proposed(
    looker: Looker, seen: list[Seen], proposer: Proposer, subject: str, fits: Callable[[str], bool], images: int
) -> list[Seen]:
    """Rounds of what a language model proposes, who sees how the rounds before did, until the budget is spent."""
    while (size := affordable_field(images, GROWN_SURVIVORS)) > 0:
        proposals = proposer.propose(subject, seen, fits)[:size]
        if not proposals:
            break
        seen = ranked([*seen, *race(proposals, looker.scores, GROWN_SURVIVORS)])
        images -= race_cost(len(proposals), GROWN_SURVIVORS)
    return seen
