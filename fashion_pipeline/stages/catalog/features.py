"""Stage 2: embeddings of every photo, and the attributes that the encoder reads off it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion_pipeline.core.features.attributes import (
    Attribute,
    Question,
    answer,
    by_facet,
    by_photo,
    ensemble,
    facet_logits,
    mean_values,
    one_a_facet,
    phrased,
    without_other_garments,
)
from fashion_pipeline.core.features.calibration import Calibration, calibrate, known_answers
from fashion_pipeline.core.features.shuffling import MOST_PHOTOS, Sight, shuffled_id
from fashion_pipeline.core.names import FEATURES_SUMMARY
from fashion_pipeline.core.prompts.planning import photos_of
from fashion_pipeline.core.rows import Photo, Role, Split
from fashion_pipeline.stages.drawing.drawing import Embedder, Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import MissingRecordError, Record
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.encoders import ClipEncoder


@dataclass(frozen=True)
class Summary:
    """What the search photos of a style are like together."""

    photos: int
    centres: Mapping[str, list[float]]
    """Role → the d numbers of their mean embedding; none where there is none."""
    values: Mapping[str, list[Any]]
    """Columns `facet`, `value` and `probability`, see `mean_values`."""


@dataclass(frozen=True)
class Neighbour:
    """A style as others see it."""

    features: Record
    summary: Summary


@dataclass(frozen=True)
class Described:
    """The attributes of a style's photos, and what is to be said of their embeddings."""

    record: Record
    attributes: pa.Table
    computed: int
    photos: int
    length_error: float
    """Largest difference of an embedding's length from 1, of encoder and judge."""
    distinct: int
    """Different embeddings by the encoder."""
    sight: Mapping[str, Sight]
    """Role → whether it sees the garments in the photos."""
    calibrations: Mapping[str, Calibration]
    """Facet → what was fitted on the photos whose answer came with them."""


def describe(store: Store, models: Models, style: str, report: Report, run: str = "") -> Described:
    """Embed a style's photos by encoder and judge, and ask the encoder for their attributes."""
    catalog = store.records.latest("catalog", style)
    state = store.sources.done_with(style, "catalog")
    photos = store.photos(catalog)
    locations = {photo.id: photo.path for photo in photos}
    control = {photo.id: photo.path for photo in control_photos(photos)}
    ids = list(locations)
    questions = models.vocabulary().questions()
    with models.encoder() as encoder, models.judge() as judge:
        embedders = [
            Embedder(store.features, style, role, model, report, models.workers)
            for role, model in ((Role.ENCODER, encoder), (Role.JUDGE, judge))
        ]
        rows = [embedder.embed(ids, locations.__getitem__).rows(ids) for embedder in embedders]
        sight = {
            role.value: _sight(embedder, control) for role, embedder in zip(Role, embedders, strict=True) if control
        }
        texts = embed_questions(encoder, questions)
        scale, used = encoder.logit_scale, {"encoder": encoder.fingerprint, "judge": judge.fingerprint}
    calibrations = _calibrations(photos, rows[0], questions, texts, scale)
    search = [at for at, photo in enumerate(photos) if photo.split == Split.SEARCH]
    temperatures = {facet: each.temperature for facet, each in calibrations.items()}
    asked = hashlib.sha256(repr(questions).encode()).hexdigest()[:16]
    attributes = answer(ids, rows[0], questions, texts, scale, temperatures)
    centres = {role.value: _centre(matrix[search]) for role, matrix in zip(Role, rows, strict=True)}
    record = store.records.add(
        "features",
        style,
        inputs={"catalog": catalog},
        made_of=used
        | {
            "vocabulary": asked,
            "temperatures": temperatures,
            "sight": {role: asdict(each) for role, each in sight.items()},
        },
        tables={"attributes": attributes},
        files={FEATURES_SUMMARY: asdict(_summary(photos, centres, attributes))},
        run=run,
    )
    if state:
        store.sources.mark(style, "features", state)
    return Described(
        record,
        attributes,
        sum(embedder.computed for embedder in embedders),
        len(ids),
        max(float(np.abs(np.linalg.norm(matrix, axis=1) - 1).max()) for matrix in rows),
        len({row.tobytes() for row in rows[0].round(4)}),
        sight,
        calibrations,
    )


def embed_questions(encoder: "ClipEncoder", questions: Sequence[Question]) -> NDArray[np.float32]:
    """(len(questions), d) unit rows: the mean direction of each question's texts."""
    texts = encoder.embed_texts([text for question in questions for text in question.texts])
    return ensemble(texts, [len(question.texts) for question in questions])


def _calibrations(
    photos: Sequence[Photo],
    images: NDArray[np.float32],
    questions: Sequence[Question],
    texts: NDArray[np.float32],
    scale: float,
) -> dict[str, Calibration]:
    """A temperature for each facet that enough search photos brought an answer to."""
    usable = [at for at, photo in enumerate(photos) if photo.split == Split.SEARCH]
    calibrations: dict[str, Calibration] = {}
    for facet, places in by_facet(questions).items():
        values = [questions[place].value for place in places]
        answered, truths = known_answers([photos[at].attributes for at in usable], facet, values)
        rows = [usable[at] for at in answered]
        logits = facet_logits(images[rows], texts[places], scale)
        if calibration := calibrate(logits, truths, [photos[at].product_group for at in rows]):
            calibrations[facet] = calibration
    return calibrations


def control_photos(photos: Sequence[Photo]) -> list[Photo]:
    """The search photos of the shuffle control, one a product."""
    return photos_of(photos, Split.SEARCH, MOST_PHOTOS)


def sight_of(features: Record) -> dict[str, Sight]:
    """Role → whether it sees the garments in a style's photos; empty where there are too few to tell."""
    return {role: Sight(**each) for role, each in features.made_of.get("sight", {}).items()}


def _sight(embedder: Embedder, photos: Mapping[str, str]) -> Sight:
    index, ids = embedder.embed_shuffled(photos, photos.__getitem__), list(photos)
    return Sight.of(index.rows(ids), index.rows([shuffled_id(id_) for id_ in ids]))


def features_of(store: Store, models: Models, style: str) -> Record:
    """The description of a style by the profile's encoder. Raises MissingRecordError where there is none by it."""
    record = store.records.latest("features", style)
    if record.made_of["encoder"] != models.fingerprint("encoder"):
        raise MissingRecordError(
            f"style {style!r} was described by another encoder than that of profile {models.profile.name!r}: "
            "materialise clip_features for it first"
        )
    return record


def summary_of(store: Store, features: Record) -> Summary:
    """What a description says of its style's search photos together; records of earlier versions are read for it.

    Raises StorageError for a damaged one.
    """
    if features.path(FEATURES_SUMMARY).exists():
        return Summary(**features.json(FEATURES_SUMMARY))
    photos = store.photos(store.records.input(features, "catalog"))
    search = [photo.id for photo in photos if photo.split == Split.SEARCH]
    centres = {
        role.value: _centre(store.features.index(features.style, role, features.made_of[role]).known(search))
        for role in Role
    }
    return _summary(photos, centres, features.table("attributes"))


def _summary(photos: Sequence[Photo], centres: Mapping[str, list[float]], attributes: pa.Table) -> Summary:
    search = pa.array([photo.id for photo in photos if photo.split == Split.SEARCH], pa.string())
    values = mean_values(attributes.filter(pc.is_in(attributes["id"], search)))
    return Summary(len(search), centres, values.to_pydict())


def _centre(rows: NDArray[np.float32]) -> list[float]:
    """(n, d) → the d numbers of their mean; none without rows."""
    return rows.mean(axis=0, dtype=np.float64).tolist() if len(rows) else []


def neighbours(store: Store, style: str) -> tuple[list[Neighbour], list[str]]:
    """All other styles that were described, and those whose description is damaged."""
    whole, damaged = [], []
    for other in store.records.styles("features"):
        if other == style:
            continue
        try:
            features = store.records.latest("features", other)
            whole.append(Neighbour(features, summary_of(store, features)))
        except StorageError:
            damaged.append(other)
    return whole, damaged


def attributes_believed(features: Record) -> bool:
    """Whether what the encoder says of a style's photos may go into prompts and captions."""
    sight = sight_of(features).get(Role.ENCODER)
    return sight is None or sight.believed


def style_attributes(store: Store, models: Models, features: Record) -> list[Attribute]:
    """What is typical of a style's search photos: one attribute a facet, likeliest first.

    Empty where the encoder does not see the garments: its answers would be guesses from colours and backgrounds.
    """
    return one_a_facet(style_values(store, models, features))


def style_values(store: Store, models: Models, features: Record) -> list[Attribute]:
    """Every value found in a style's search photos with its mean probability, likeliest first; likewise."""
    return values_in(store, models, Neighbour(features, summary_of(store, features)))


def values_in(store: Store, models: Models, style: Neighbour) -> list[Attribute]:
    """The same of a style whose summary was read already."""
    features = style.features
    if not attributes_believed(features):
        return []
    values, vocabulary = pa.table(dict(style.summary.values)), models.vocabulary()
    return phrased(without_other_garments(values, store.sources.subject(features.style), vocabulary), vocabulary)


def answers_of(store: Store, models: Models, features: Record) -> pa.Table:
    """The rows of table `attributes` that may go into prompts; none where the encoder sees no garments.

    Left out are garments that the style's name rules out.
    """
    rows = features.table("attributes")
    if not attributes_believed(features):
        return rows.slice(0, 0)
    return without_other_garments(rows, store.sources.subject(features.style), models.vocabulary())


def photo_attributes(store: Store, models: Models, features: Record) -> dict[str, list[Attribute]]:
    """Photo → the likeliest value of each facet that may go into prompts, likeliest first."""
    return by_photo(answers_of(store, models, features), models.vocabulary())
