"""What has changed of a style since it was last trained and evaluated."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from fashion_pipeline.core.automation.reasons import Change
from fashion_pipeline.core.features.drift import Drift, drift
from fashion_pipeline.core.rows import Role, Split
from fashion_pipeline.core.training.recipe import DEFAULTS
from fashion_pipeline.intake.sources import listing_state, read_style
from fashion_pipeline.settings import Profile
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

_NOT_A_SETTING = ("presets", "generation", "training")


def settings_state(store: Store, profile: Profile, style: str) -> str:
    """A hash of the profile and of what was chosen for a style; another version of the program is no other setting.

    Models count by name and place: where they were only moved, the next run finds its training made. What is as usual
    does not count, so that a knob which a later release adds changes nothing.
    """
    said = {each.name: getattr(profile, each.name) for each in fields(profile) if each.name not in _NOT_A_SETTING}
    usual = {each.name: each.default for each in fields(profile)}
    plain: dict[str, Any] = {name: str(value) for name, value in said.items() if value != usual[name]}
    plain |= {"generation": profile.generation.model_dump(mode="json", exclude_defaults=True)}
    plain |= {"training": profile.training.differing(), "chosen": store.sources.config(style)}
    return hashlib.sha256(json.dumps([DEFAULTS, plain], sort_keys=True).encode()).hexdigest()[:16]


def _is_as_evaluated(store: Store, profile: Profile, style: str) -> bool:
    """Whether the settings are those with which a style was evaluated, as far as that is known."""
    evaluated = store.sources.done_with(style, "evaluation")
    return evaluated in (None, settings_state(store, profile, style), _state_of_before(store, profile, style))


def _state_of_before(store: Store, profile: Profile, style: str) -> str:
    """The same as versions up to 0.1.0 wrote it."""
    text = repr(replace(profile, presets={})) + json.dumps(store.sources.config(style), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trained_catalog(store: Store, style: str) -> Record | None:
    """The catalog that the newest evaluation of a style rests on; None where it was never evaluated."""
    evaluation = store.records.newest("evaluation", style)
    return store.records.input(evaluation, "catalog") if evaluation else None


def evaluated_at(store: Store, style: str) -> str | None:
    """When a style was last evaluated, ISO 8601, UTC; None where it never was."""
    evaluation = store.records.newest("evaluation", style)
    return evaluation.created if evaluation else None


def position(store: Store, profile: Profile, style: str, listed: str) -> str:
    """All that `change_of` depends on, in a line: while it is the same, so is the change."""
    catalog, trained = store.records.newest("catalog", style), trained_catalog(store, style)
    keys = [record.key if record else "none" for record in (catalog, trained)]
    done = [store.sources.done_with(style, step) or "none" for step in ("features", "evaluation")]
    settings = settings_state(store, profile, style)
    return " ".join([*keys, *done, settings, listed, str(len(store.withdrawals.all()))])


def change_of(store: Store, profile: Profile, style: str, listed: str, baseline: str | None = None) -> Change:
    """What has changed of a style; `listed` is the state of its photos as they lie there (`listing_state`).

    Where it was never trained, photos are new that are not in the catalog `baseline`, or all without one. Raises
    StorageError for what is damaged.
    """
    catalog, trained = store.records.newest("catalog", style), trained_catalog(store, style)
    compared = trained or (store.records.find("catalog", style, baseline) if baseline else None)
    now, before = _images(catalog), _images(compared)
    used = set(_images(trained))
    return Change(
        photos=len(now),
        trained=trained is not None,
        new=len(now.keys() - before.keys()),
        gone=len(used - now.keys()),
        withdrawn=len(used & store.withdrawals.ids()),
        settings=trained is not None and not _is_as_evaluated(store, profile, style),
        arrivals=store.sources.done_with(style, "features") != listed,
        drift=_drift(store, style, now, before) if trained else None,
    )


def change_now(store: Store, profile: Profile, style: str) -> Change:
    """`change_of` by the photos as they lie there at this moment. Raises CatalogError, StorageError."""
    listing = read_style(store.sources.source(style), style)
    return change_of(store, profile, style, listing_state(listing.entries))


def change_since_evaluated(store: Store, profile: Profile, style: str) -> Change:
    """`change_of` by the photos as they were last described. Raises StorageError."""
    return change_of(store, profile, style, store.sources.done_with(style, "features") or "")


def _images(catalog: Record | None) -> dict[str, Mapping[str, Any]]:
    """Id → product group and split."""
    rows = catalog.table("images").select(["id", "product_group", "split"]).to_pylist() if catalog else []
    return {row["id"]: row for row in rows}


def _drift(
    store: Store, style: str, now: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]
) -> Drift | None:
    """New photos of `search` against those of it that were trained on, by the encoder; None where it saw too few.

    Only `search` is looked at: the other splits judge what is trained because of this.
    """
    features = store.records.newest("features", style)
    if features is None:
        return None
    index = store.features.index(style, Role.ENCODER, str(features.made_of[Role.ENCODER]))

    def seen(rows: Mapping[str, Mapping[str, Any]], without: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
        ids = [id_ for id_, row in rows.items() if row["split"] == Split.SEARCH and id_ not in without and id_ in index]
        return index.rows(ids), [str(rows[id_]["product_group"]) for id_ in ids]

    return drift(*seen(now, before), *seen(before, {}))
