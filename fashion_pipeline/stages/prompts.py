"""Stage 3: the candidates that each strategy writes for the style."""

from dataclasses import dataclass

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.features.similarity import mean_similarity
from fashion_pipeline.core.prompts.strategies import Candidate, StyleView, write_all
from fashion_pipeline.core.rows import Photo, Split
from fashion_pipeline.stages.features import features_of, neighbours, style_attributes
from fashion_pipeline.stages.models import Models
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Written:
    """The candidates of a style."""

    record: Record
    candidates: list[Candidate]
    attributes: list[Attribute]
    """What is typical of the style."""

    @property
    def dropped(self) -> int:
        """Phrases left out so that prompts fit."""
        return sum(len(candidate.dropped) for candidate in self.candidates)


def write_candidates(store: Store, models: Models, style: str, run: str = "") -> Written:
    """Let every strategy write its prompts, and look how close their texts are to the search photos."""
    features = features_of(store, models, style)
    catalog = store.records.input(features, "catalog")
    photos = [photo.id for photo in search_photos(store, catalog)]
    view = _view(store, models, features)
    candidates = write_all(view)
    with models.encoder() as encoder:
        texts = encoder.embed_texts([candidate.prompt for candidate in candidates])
        index = store.features.index(style, "encoder", encoder.fingerprint)
    rows = [
        {
            "id": candidate.id,
            "strategy": candidate.strategy,
            "prompt": candidate.prompt,
            "negative_prompt": candidate.negative_prompt,
            "phrases": list(candidate.phrases),
            "dropped": list(candidate.dropped),
            "parent": candidate.parent,
            "text_similarity": float(score),
        }
        for candidate, score in zip(candidates, mean_similarity(texts, index.rows(photos)), strict=True)
    ]
    inputs = {"catalog": catalog, "features": features}
    record = store.records.add("candidates", style, inputs=inputs, tables={"candidates": rows}, run=run)
    return Written(record, candidates, list(view.attributes))


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
        )
        for row in record.table("candidates").to_pylist()
    }


def search_photos(store: Store, catalog: Record) -> list[Photo]:
    """The photos that prompts may be chosen and weights trained on. Raises CatalogError where there are none."""
    photos = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    if not photos:
        raise CatalogError(
            f"no photo of style {catalog.style!r} fell into the split 'search', on which prompts are chosen and "
            "weights trained: add photos of other products"
        )
    return photos


def _view(store: Store, models: Models, features: Record) -> StyleView:
    """What strategies may look at."""
    style = features.style
    others, _ = neighbours(store, style)
    searched = store.records.newest("search", style)
    parents = searched.table("leaderboard").to_pylist() if searched else []
    return StyleView(
        store.sources.subject(style),
        style_attributes(store, models, features),
        models.prompt_fits(),
        {other.style: style_attributes(store, models, other) for other in others},
        [Candidate(row["strategy"], row["prompt"], row["negative_prompt"]) for row in parents],
    )
