"""Whether there is a reason to train a style again."""

from dataclasses import dataclass

from fashion_pipeline.core.automation.preferences import Rule
from fashion_pipeline.core.evaluation.foresight import too_few_photos
from fashion_pipeline.core.features.drift import Drift


@dataclass(frozen=True)
class Change:
    """What is different from when a style was last trained and evaluated."""

    photos: int
    """Photos in its catalog now."""
    trained: bool
    """Whether it was ever trained."""
    new: int
    """Photos that were not in the catalog then; all of them where it was never trained."""
    gone: int
    """Photos that were, and are not any more."""
    withdrawn: int
    """Photos that it was trained or judged with and that were withdrawn since."""
    settings: bool
    """Whether the profile, or what was chosen for the style, is another."""
    arrivals: bool
    """Whether the photos that lie there are others than those of the catalog; how many is not known yet."""
    drift: Drift | None
    """New photos against those trained on; None where there are too few to tell."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.new or self.gone or self.withdrawn or self.settings or self.arrivals)

    def __str__(self) -> str:
        """What there is, in words."""
        parts = [f"{self.new} new {_photos(self.new)}"]
        parts += [f"{self.gone} gone"] if self.gone else []
        parts += [f"{self.withdrawn} withdrawn"] if self.withdrawn else []
        parts += ["photos that were not taken in yet"] if self.arrivals else []
        parts += ["other settings"] if self.settings else []
        parts += [f"drift p = {self.drift.p:.3g}"] if self.drift else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Decision:
    """Whether a style is retrained, and why or why not."""

    retrain: bool
    why: str


def at_once(change: Change, rule: Rule) -> Decision:
    """What the sensor does: enough new photos, or photos of another kind, are reasons."""
    if not change.new and not change.trained and change.photos:
        wait = (
            f"waits for {rule.new_photos} new photos or a run by hand" if rule.new_photos else "waits for a run by hand"
        )
        return Decision(False, f"{change.photos} {_photos(change.photos)}, never trained: {wait}")
    if not change.new:
        return Decision(False, "no new photos" if change.trained else "has no photos")
    if change.trained and change.drift and change.drift.p < rule.drift:
        return Decision(True, _drifted(change.drift, rule))
    if not rule.new_photos:
        return Decision(False, f"{change}; photos alone are no reason here")
    if change.new < rule.new_photos:
        return Decision(False, f"{change}; it takes {rule.new_photos} new photos")
    if not change.trained:
        return _first(change)
    return Decision(True, f"{change.new} new {_photos(change.new)}")


def on_schedule(change: Change, rule: Rule) -> Decision:
    """What the schedule does: any difference is a reason."""
    if not change.trained:
        return _first(change)
    if change.drift and change.drift.p < rule.drift:
        return Decision(True, _drifted(change.drift, rule))
    if change:
        return Decision(True, f"on schedule: {change}")
    return Decision(False, "photos, profile and settings are those of the last training")


def _first(change: Change) -> Decision:
    few = too_few_photos(change.photos)
    why = f"first training, on {change.photos} {_photos(change.photos)}"
    return Decision(True, f"{why}; {few}" if few else why)


def _drifted(drift: Drift, rule: Rule) -> str:
    return (
        f"drift: {drift.arrived} new products differ from {drift.known} that were trained on "
        f"(p = {drift.p:.2g}, below {rule.drift:g})"
    )


def _photos(count: int) -> str:
    return "photo" if count == 1 else "photos"
