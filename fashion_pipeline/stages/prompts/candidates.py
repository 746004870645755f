"""Stage 3: the candidates that each strategy writes for the style."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.core.features.attributes import Attribute, given_values, mean_values, one_a_facet, phrased
from fashion_pipeline.core.features.clusters import clusters
from fashion_pipeline.core.features.similarity import mean_similarity
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.proposals import kept_out
from fashion_pipeline.core.prompts.strategies import StyleView, negative_prompt, with_negative, write_all
from fashion_pipeline.core.rows import Photo, Role, Split
from fashion_pipeline.stages.catalog.features import (
    answers_of,
    attributes_believed,
    features_of,
    neighbours,
    style_attributes,
    style_values,
    values_in,
)
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

WITH_NEGATIVE = 2
"""Prompts, the closest to the photos by text, that also compete with a negative prompt, beside the plain one."""

ASKED_FOR = ("plain", "handwritten")
"""Strategies whose prompts are written whatever words are kept out: the style's name, and a person's own."""

Closeness = Callable[[Sequence[str]], list[float]]


@dataclass(frozen=True)
class Written:
    """The candidates of a style."""

    record: Record
    candidates: list[Candidate]
    attributes: list[Attribute]
    """What is typical of the style."""
    negative: str
    """What the style is not, from its neighbours; empty without any."""
    round: int

    @property
    def dropped(self) -> int:
        """Phrases left out so that prompts fit."""
        return sum(len(candidate.dropped) for candidate in self.candidates)


def write_candidates(
    store: Store, models: Models, style: str, *, prompts: Sequence[str] = (), rounds: int = 1, run: str = ""
) -> Written:
    """Let every strategy write its prompts, and look how close their texts are to the search photos.

    `prompts` are added as they are. With `rounds` above 1 a search that was made before is the earlier round, from
    whose winners this one starts; one call goes one round further. Raises ValueError for a prompt that is too long.
    """
    features = features_of(store, models, style)
    catalog = store.records.input(features, "catalog")
    earlier = _earlier(store, style, rounds)
    with models.encoder() as encoder:
        photos = store.features.index(style, Role.ENCODER, encoder.fingerprint)
        rows = photos.rows([photo.id for photo in search_photos(store, catalog)])
        closeness = _remembered(lambda texts: mean_similarity(encoder.embed_texts(texts), rows).tolist())
        view = _view(store, models, features, rows, closeness, prompts, earlier)
        is_kept_out = kept_out(models.profile.looks.never)
        written = [each for each in write_all(view) if each.strategy in ASKED_FOR or not is_kept_out(each.prompt)]
        scores = dict(zip((each.id for each in written), closeness([each.prompt for each in written]), strict=True))
    negative = negative_prompt(view)
    closest = sorted(written, key=lambda each: (each.strategy != "plain", -scores[each.id]))[: 1 + WITH_NEGATIVE]
    twins = [with_negative(each, negative) for each in closest if negative and not each.negative_prompt]
    candidates = list({each.id: each for each in [*written, *twins]}.values())
    table = [_row(each, scores.get(each.id, scores.get(each.parent or "", 0.0))) for each in candidates]
    inputs = {"catalog": catalog, "features": features} | ({"search": earlier} if earlier else {})
    number = round_of(store, earlier) + 1 if earlier else 1
    record = store.records.add(
        "candidates", style, inputs=inputs, made_of={"round": number}, tables={"candidates": table}, run=run
    )
    return Written(record, candidates, list(view.attributes), negative, number)


def read_candidates(record: Record) -> dict[str, Candidate]:
    """The candidates of a record by id."""
    return {
        row["id"]: Candidate(
            row["strategy"],
            row["prompt"],
            row["negative_prompt"],
            tuple(row["phrases"]),
            tuple(row["dropped"]),
            row["parent"],
            row["guidance"],
        )
        for row in record.table("candidates").to_pylist()
    }


def read_explored(searched: Record) -> dict[str, Candidate]:
    """The prompts that a search looked at, by id."""
    return {
        row["candidate"]: Candidate(
            row["strategy"], row["prompt"], row["negative_prompt"], tuple(row["phrases"]), parent=row["parent"]
        )
        for row in searched.table("explored").to_pylist()
    }


def earlier_search(store: Store, candidates: Record) -> Record | None:
    """The search of the round before, which these candidates start from."""
    return store.records.input(candidates, "search") if "search" in candidates.inputs else None


def round_of(store: Store, searched: Record) -> int:
    """Which round of a style a search was, from 1."""
    return int(store.records.input(searched, "candidates").made_of.get("round", 1))


def search_photos(store: Store, catalog: Record) -> list[Photo]:
    """The photos that prompts may be chosen and weights trained on. Raises CatalogError where there are none."""
    photos = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    if not photos:
        raise CatalogError(
            f"no photo of style {catalog.style!r} fell into the split 'search', on which prompts are chosen and "
            "weights trained: add photos of other products"
        )
    return photos


def _earlier(store: Store, style: str, rounds: int) -> Record | None:
    """The newest search of a round below `rounds`."""
    earlier = store.records.newest("search", style) if rounds > 1 else None
    while earlier is not None and round_of(store, earlier) >= rounds:
        earlier = earlier_search(store, store.records.input(earlier, "candidates"))
    return earlier


def _view(
    store: Store,
    models: Models,
    features: Record,
    rows: NDArray[np.float32],
    closeness: Closeness,
    prompts: Sequence[str],
    earlier: Record | None,
) -> StyleView:
    """What strategies may look at."""
    vocabulary, photos = models.vocabulary(), search_photos(store, store.records.input(features, "catalog"))
    answers = answers_of(store, models, features)
    groups = clusters(rows) if attributes_believed(features) else []
    others, _ = neighbours(store, features.style)
    return StyleView(
        store.sources.subject(features.style),
        style_attributes(store, models, features),
        prompt_fits(models),
        values=style_values(store, models, features),
        others={
            other.features.style: values_in(store, models, other)
            for other in others
            if attributes_believed(other.features)
        },
        given=given_values([photo.attributes for photo in photos], vocabulary),
        clusters=[
            one_a_facet(phrased(mean_values(_of(answers, [photos[at].id for at in group])), vocabulary))
            for group in groups
        ],
        handwritten=prompts,
        parents=_parents(store, earlier) if earlier else [],
        closeness=closeness,
    )


def _of(answers: pa.Table, photos: Sequence[str]) -> pa.Table:
    return answers.filter(pc.is_in(answers["id"], pa.array(photos, pa.string())))


def _parents(store: Store, searched: Record) -> list[Candidate]:
    """The candidates of an earlier search, best first, with their phrases; of the same words at several guidance scales
    the best alone."""
    parents: dict[str, Candidate] = {}
    record: Record | None = searched
    while record is not None:
        written = store.records.input(record, "candidates")
        parents = read_candidates(written) | read_explored(record) | parents
        record = earlier_search(store, written)
    best: dict[str, Candidate] = {}
    for row in searched.table("leaderboard").to_pylist():
        words = Candidate("", row["prompt"], row["negative_prompt"]).id
        if words in parents:
            best.setdefault(words, replace(parents[words], guidance=row["guidance"]))
    return list(best.values())


def candidate_of(row: Mapping[str, Any]) -> Candidate:
    """The candidate of a row of table `leaderboard`, without its phrases."""
    return Candidate(row["strategy"], row["prompt"], row["negative_prompt"], guidance=row["guidance"])


def best_prompts(store: Store, style: str, most: int) -> list[dict[str, Any]]:
    """Rows of the newest search's best prompts: those drawn for photos first, then those that were only looked at."""
    searched = store.records.latest("search", style)
    names = ("prompt", "negative_prompt", "guidance", "strategy", "mean", "low", "high", "images")
    rows = [{name: row[name] for name in names} for row in searched.table("leaderboard").to_pylist()]
    drawn = {(row["prompt"], row["negative_prompt"]) for row in rows}
    rows += [
        dict.fromkeys(names) | {name: row[name] for name in names if name in row} | {"mean": row["score"]}
        for row in searched.table("explored").to_pylist()
        if (row["prompt"], row["negative_prompt"]) not in drawn
    ]
    return rows[:most]


def _row(candidate: Candidate, score: float) -> dict[str, object]:
    return {
        "id": candidate.id,
        "strategy": candidate.strategy,
        "prompt": candidate.prompt,
        "negative_prompt": candidate.negative_prompt,
        "phrases": list(candidate.phrases),
        "dropped": list(candidate.dropped),
        "parent": candidate.parent,
        "guidance": candidate.guidance,
        "text_similarity": float(score),
    }


def _remembered(score: Closeness) -> Closeness:
    """The same, asking for no text twice."""
    means: dict[str, float] = {}

    def look_up(texts: Sequence[str]) -> list[float]:
        new = [text for text in dict.fromkeys(texts) if text not in means]
        means.update(zip(new, score(new), strict=True) if new else ())
        return [means[text] for text in texts]

    return look_up
