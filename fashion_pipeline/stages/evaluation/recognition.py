"""Stage 8, whether samples show something, and the garment that the photos show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fashion_pipeline.core.evaluation.measures import GARMENT, PROMPT, RECOGNISED
from fashion_pipeline.core.evaluation.scores import sample_scores
from fashion_pipeline.core.features.attributes import GARMENT as GARMENT_FACET
from fashion_pipeline.core.features.attributes import answer
from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.shuffling import Sight, recognised, shuffled_id
from fashion_pipeline.core.rows import Role, Sample, Score
from fashion_pipeline.stages.catalog.features import control_photos, embed_questions
from fashion_pipeline.stages.drawing.drawing import Embedder, Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.encoders import ClipEncoder


@dataclass(frozen=True)
class Recognised:
    """What samples show."""

    scores: list[Score]
    """Measures `recognised`, `prompt` and, where the vocabulary has the facet, `garment`."""
    sight: Mapping[str, Sight]
    """Role → whether it sees the garments in the photos."""


def recognise(store: Store, models: Models, catalog: Record, samples: Sequence[Sample], report: Report) -> Recognised:
    """Look whether each sample is closer to whole photos than to their pieces, and shows what it should.

    That is its prompt's words and the garment of its photo.
    """
    style, photos = catalog.style, store.photos(catalog)
    control = {photo.id: photo.path for photo in control_photos(photos)}
    wanted = {sample.reference for sample in samples}
    references = {photo.id: photo.path for photo in photos if photo.id in wanted}
    shown_photos = references | control
    drawn = list(dict.fromkeys(sample.id for sample in samples))
    shown = dict.fromkeys(drawn, True)
    sight: dict[str, Sight] = {}
    with models.encoder() as encoder, models.judge() as judge:
        for role, model in ((Role.ENCODER, encoder), (Role.JUDGE, judge)):
            embedder = Embedder(store.features, style, role, model, report, models.workers)
            embedder.embed(shown_photos, shown_photos.__getitem__)
            real = embedder.embed_shuffled(control, control.__getitem__)
            own = Embedder(store.sample_features, style, role, model, report, models.workers)
            drawn_index = own.embed(drawn, store.samples.location)
            whole, pieces = real.rows(list(control)), real.rows([shuffled_id(id_) for id_ in control])
            sight[role] = Sight.of(whole, pieces)
            if drawn and control:
                closer = recognised(drawn_index.rows(drawn), whole, pieces)
                shown = {id_: shown[id_] and bool(each) for id_, each in zip(drawn, closer, strict=True)}
            if role == Role.ENCODER:
                garments = _garments(models, encoder, [(real, list(references)), (drawn_index, drawn)])
                agreement = _agreement(encoder, samples, drawn_index)
    same = {
        sample.id: float(garments[sample.id] == garments[sample.reference])
        for sample in samples
        if sample.id in garments
    }
    return Recognised(
        sample_scores(samples, agreement, PROMPT.name)
        + sample_scores(samples, {id_: float(each) for id_, each in shown.items()}, RECOGNISED.name)
        + sample_scores(samples, same, GARMENT.name),
        sight,
    )


def _agreement(encoder: "ClipEncoder", samples: Sequence[Sample], made: FeatureIndex) -> dict[str, float]:
    """Sample → its cosine to its own prompt."""
    if not samples:
        return {}
    prompts = list(dict.fromkeys(sample.prompt for sample in samples))
    texts = dict(zip(prompts, encoder.embed_texts(prompts), strict=True))
    rows = made.rows([sample.id for sample in samples])
    return {s.id: float(row @ texts[s.prompt]) for s, row in zip(samples, rows, strict=True)}


def _garments(
    models: Models, encoder: "ClipEncoder", images: Sequence[tuple[FeatureIndex, Sequence[str]]]
) -> dict[str, str]:
    """Photo or sample → its likeliest garment; empty where the vocabulary does not ask for garments."""
    questions = [question for question in models.vocabulary().questions() if question.facet == GARMENT_FACET]
    if not questions:
        return {}
    texts = embed_questions(encoder, questions)
    garments: dict[str, str] = {}
    for index, ids in images:
        if ids:
            answers = answer(ids, index.rows(ids), questions, texts, encoder.logit_scale)
            for id_, value in zip(answers["id"].to_pylist(), answers["value"].to_pylist(), strict=True):
                garments.setdefault(id_, value)
    return garments
