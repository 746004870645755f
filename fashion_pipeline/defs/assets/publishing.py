"""Stage 9, publishing: a version that anyone can load, only if it is better than what there is."""

from typing import Any, Literal

import dagster as dg
from pydantic import Field

from fashion_pipeline.core.reports.links import index_link, version_link, version_report_link
from fashion_pipeline.defs.assets.evaluation import evaluation_report
from fashion_pipeline.defs.conditions import FOLLOWS_ANY
from fashion_pipeline.defs.configuration import settled
from fashion_pipeline.defs.metadata import CODE_VERSION, Album, common, link, markdown
from fashion_pipeline.defs.styles import OWNERS
from fashion_pipeline.intake.photos import content_id
from fashion_pipeline.resources.steps import step
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.pages import index_page
from fashion_pipeline.stages.pages.reports import comparison_picture
from fashion_pipeline.stages.publishing.publishing import Published, approve, leaderboard_row, publish
from fashion_pipeline.store.store import Store


class PublishingConfig(dg.Config):
    """Who decides."""

    approval: Literal["none", "required"] = Field(
        default="none",
        description="required: a better model is made ready and waits until somebody materialises approved_model. "
        "none: as was chosen for the style (fashion-pipeline run --approval), which a launch does not undo.",
    )


@dg.asset(**common("publishing", "safetensors"), deps=[evaluation_report])
@step
def published_model(
    context: dg.AssetExecutionContext,
    config: PublishingConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """The version in use, and what was decided about the newest one, which is published only if it is better.

    A materialisation says what became of the newest model; where nothing is published, it says why, and which version
    stays in use. **What waits for approval** is told here and by `approved_model`, which puts it in use.

    **What is behind a version**: the link `trail` leads to the photos that it was trained on, its prompts, each sample
    with its seed, and the scores. Earlier versions: the tab *Events*, or the links on top of the page of any version.
    """
    style = context.partition_key
    approval = settled(config, store, style, "published_model")["approval"]
    published = publish(store, models, style, approval)
    context.log.info(published.reason)
    if published.waits:
        context.log_event(_waiting(store, style, published))
    return _result(store, style, published)


@dg.asset(**common("publishing", "safetensors"), deps=[published_model])
@step
def approved_model(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """Materialise this to put the version in use that waits for approval. No job and no schedule does."""
    return _result(store, context.partition_key, approve(store, context.partition_key))


def _waiting(store: Store, style: str, made: Published) -> dg.AssetObservation:
    """What the page of `approved_model` says while a version waits for it."""
    evaluation = store.records.latest("evaluation", style)
    picture = Album(store, evaluation).picture("before and after", comparison_picture(store, evaluation))
    metadata: dict[str, Any] = {
        "waits for approval": made.reason,
        "decision": made.headline,
        "before and after": picture,
    }
    return dg.AssetObservation("approved_model", partition=style, metadata=metadata)


def _result(store: Store, style: str, made: Published) -> dg.MaterializeResult:
    pointer = store.versions.pointer(style)
    metadata: dict[str, Any] = {
        "decision": made.headline,
        "what became of it": made.reason,
        "version in use": pointer.version or "none",
        "page": link("all styles", index_link()),
    }
    if made.waits:
        metadata["waits for approval"] = link(f"version {made.version}: materialise approved_model", index_link())
    if pointer.version:
        metadata |= {
            "trail": link("photos, prompts, seeds and scores behind it", version_link(style, pointer.version)),
            "report": link("report of this version", version_report_link(style, pointer.version)),
            "folder": dg.MetadataValue.path(str(store.versions.folder(style, pointer.version))),
        }
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(pointer.version or "none"))


@dg.asset(
    deps=[evaluation_report],
    group_name="publishing",
    kinds={"json"},
    owners=OWNERS,
    code_version=CODE_VERSION,
    automation_condition=FOLLOWS_ANY,
)
@step
def style_leaderboard(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """All evaluated styles: what words and what training gained, the verdict, and a page with before and after."""
    rows = [leaderboard_row(store, style) for style in store.sources.styles()]
    evaluated = [row for row in rows if row]
    columns = list(dict.fromkeys(name for row in evaluated for name in row))
    shown = markdown([{name: row.get(name) for name in columns} for row in evaluated])
    index_page(store, models)
    return dg.MaterializeResult(
        metadata={"styles": shown, "evaluated": len(evaluated), "page": link("all styles on one page", index_link())},
        data_version=dg.DataVersion(content_id(str(shown.value).encode())),
    )
