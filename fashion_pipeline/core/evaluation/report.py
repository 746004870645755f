"""The report on one style as `report.json` holds it: read and written here, and nowhere as a dictionary."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_serializer

from fashion_pipeline.core.evaluation.decisions import Decision, decision_of_before
from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.evaluation.verdicts import SPLIT, Verdict
from fashion_pipeline.core.features.shuffling import Sight
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.rows import Model, Role


class Cell(BaseModel):
    """What one measure says of one model with one prompt on one split."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    prompt: str
    measure: str
    split: str
    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def condition(self) -> Condition:
        """Model and prompt."""
        return Condition(self.model, self.prompt)

    @property
    def interval(self) -> Interval:
        """The mean over products, or what a measure says of a set."""
        return Interval(self.mean, self.low, self.high, self.n)


class Gain(Cell):
    """The paired difference of a model with a prompt over another one."""

    against: Condition

    @field_serializer("against")
    def _by_name(self, against: Condition) -> dict[str, str]:
        return against._asdict()


class Judgement(BaseModel):
    """A verdict as it is stored."""

    verdict: str
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> "Judgement":
        """What a verdict says."""
        return cls(verdict=verdict.name, reason=verdict.reason)


class EvaluationReport(BaseModel):
    """What was measured of a style and decided about it; of prompts alone where no model was trained.

    Reports of earlier versions lack what came later, so every field has a default.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    style: str = ""
    profile: str = ""
    optimized_prompt: str = ""
    negative_prompt: str = ""
    guidance_scale: float | None = None
    strategy: str = ""
    similarity_score: float | None = None
    """Encoder cosine of the best prompt with the original model on `test`."""
    scores: list[Cell] = []
    gains: list[Gain] = []
    equal_cost: list[dict[str, Any]] = []
    """As `core.evaluation.best_of.equal_cost` has it."""
    verdict: str | None = None
    """On the specialised model; None where none was trained."""
    reason: str | None = None
    prompt_verdict: Judgement | None = None
    """On the best prompt, where no model was trained."""
    garments_seen: dict[str, Sight] = {}
    """Role → what the shuffle control says."""
    plain_prompt: str | None = None
    model: str | None = None
    """The version that was evaluated."""
    champion: str | None = None
    """The version that was in use, where there was another one."""
    against_champion: Judgement | None = None
    attributes: list[dict[str, Any]] = []
    """Gains by attribute."""
    trained_photos: int | None = None
    trained_images: int | None = None
    """Photos and generated images together."""
    weights: str | None = None
    """The file that was evaluated, where it was trained elsewhere."""
    decision: Decision | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "EvaluationReport":
        """From the values of `report.json`. Raises ValueError that names the field."""
        return cls.model_validate(values)

    def as_json(self) -> dict[str, Any]:
        """What `report.json` holds: only what was said."""
        return self.model_dump(mode="json", exclude_unset=True)

    def told(self) -> Decision | None:
        """The decision; for a report of an earlier version, what it says about one. None where nothing was trained."""
        if self.decision or self.verdict is None:
            return self.decision
        against = (self.against_champion.verdict, self.against_champion.reason) if self.against_champion else None
        return decision_of_before(self.verdict, self.reason or "", against)

    def mean(self, model: str, prompt: str, measure: str, split: str = SPLIT) -> Cell | None:
        """One cell of the design."""
        wanted = (model, prompt, measure, split)
        return next((cell for cell in self.scores if (*cell.condition, cell.measure, cell.split) == wanted), None)

    def recommended(self) -> Candidate:
        """The prompt that came closer with what was evaluated, by the encoder on dev; plain where they tie."""
        model = Model.SPECIALISED if self.verdict is not None else Model.ORIGINAL
        means = {prompt: self.mean(model, prompt, Role.ENCODER) for prompt in ("plain", "best")}
        plain, best = means["plain"], means["best"]
        if self.plain_prompt is not None and plain and (best is None or best.mean <= plain.mean):
            return Candidate("plain", self.plain_prompt)
        return Candidate("best", self.optimized_prompt, self.negative_prompt, guidance=self.guidance_scale)
