"""Where columns come from and where assets are written, as the Dagster UI links them."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

COLUMNS: dict[str, dict[str, Sequence[str]]] = {
    "clip_features": {"id": ["raw_images.id"], "embedding": ["raw_images.path"]},
    "prompt_candidates": {
        "prompt": ["clip_features.embedding"],
        "negative_prompt": ["clip_features.embedding"],
        "phrases": ["clip_features.embedding", "raw_images.attributes"],
        "text_similarity": ["clip_features.embedding"],
    },
    "generated_samples": {
        "candidate": ["prompt_candidates.id"],
        "prompt": ["prompt_candidates.prompt"],
        "negative_prompt": ["prompt_candidates.negative_prompt"],
        "guidance": ["prompt_candidates.guidance"],
        "reference": ["raw_images.id"],
        "product_group": ["raw_images.product_group"],
        "seed": ["raw_images.product_group"],
        "split": ["raw_images.split"],
    },
    "similarity_table": {
        "sample": ["generated_samples.id"],
        "reference": ["generated_samples.reference"],
        "cosine": ["generated_samples.id", "clip_features.embedding"],
        "anchored": ["clip_features.embedding"],
    },
    "prompt_report": {
        "product_group": ["generated_samples.product_group"],
        "prompt": ["generated_samples.prompt_name"],
        "value": ["similarity_table.cosine"],
        "anchored": ["similarity_table.anchored"],
    },
    "curated_subset": {
        "id": ["raw_images.id", "generated_samples.id"],
        "path": ["raw_images.path"],
        "caption": ["raw_images.caption", "clip_features.embedding"],
        "score": ["clip_features.embedding", "similarity_table.cosine"],
    },
    "lora_weights": {
        "loss": ["curated_subset.id", "curated_subset.caption"],
        "held_out_loss": ["raw_images.id"],
        "similarity": ["clip_features.embedding"],
    },
    "evaluation_report": {
        "product_group": ["raw_images.product_group"],
        "split": ["raw_images.split"],
        "value": ["clip_features.embedding"],
        "prompt": ["generated_samples.prompt_name"],
    },
}
"""Asset → column of its first table → columns of first tables that it is made from."""


def column_lineage(asset: str) -> dict[str, Any]:
    """Metadata of a materialisation; empty for an asset whose table comes from nothing that is a table."""
    columns = COLUMNS.get(asset)
    if columns is None:
        return {}
    deps = {
        column: [dg.TableColumnDep(*source.split(".")) for source in sources] for column, sources in columns.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}


def with_source(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """An asset with a reference to the lines where it is written."""
    function = inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
    line = inspect.getsourcelines(function)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=inspect.getfile(function), line_number=line)
        value = dg.CodeReferencesMetadataValue(code_references=[reference])
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata={"dagster/code_references": value}))
