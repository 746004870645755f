"""A thousand styles: what a tick of the sensor, the list of styles, the pages and Dagster's own UI take then.

    python -m benchmarks.scaling.styles [--styles 1000] [--data FOLDER]

The catalogs and descriptions are planted, 8 photos a style, and each style has materialisations of three assets in an
SQLite instance. Told are seconds of what people and daemons wait for; of the web server's answers the median of three.
With `--data` the data root is kept there, to look at it by `FASHION_PIPELINE_DATA=FOLDER fashion-pipeline ui`.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import timed
from tools.ten_runs import free_port

ASSETS = ("raw_images", "clip_features", "evaluation_report")
SIDE = 32
PHOTOS = 8

_ONE = '{ assetNodeOrError(assetKey: {path: ["raw_images"]}) { ... on AssetNode { %s } } }'
QUERIES = {
    "lineage": "{ assetNodes { assetKey { path } dependencyKeys { path } groupName isPartitioned } }",
    "partitions of an asset with their status": _ONE
    % """partitionKeys partitionStats { numMaterialized numPartitions } assetPartitionStatuses {
    ... on DefaultPartitionStatuses { materializedPartitions unmaterializedPartitions } }""",
    "staleness of all partitions of an asset": _ONE % "partitionKeys staleStatusByPartition",
    "the first 25 runs": "{ runsOrError(limit: 25) { ... on Runs { results { runId status } } } }",
}
"""What the pages of Dagster's UI ask its server."""


def main(count: int, root: Path) -> None:
    """Plant, then time."""
    os.environ["FASHION_PIPELINE_DATA"] = str(root)
    from fashion_pipeline.settings import enter, read_settings

    settings = enter(read_settings())
    print(f"planted {count} styles in {timed(lambda: _plant(root, count)):.0f} s", flush=True)

    import dagster as dg

    from fashion_pipeline import api
    from fashion_pipeline.defs.automation.sensors import new_photos
    from fashion_pipeline.stages.catalog.catalog import catalogue
    from fashion_pipeline.stages.drawing.models import Models
    from fashion_pipeline.stages.pages.pages import index_page
    from fashion_pipeline.stages.prompts.similarity import style_anchors
    from fashion_pipeline.store.store import Store

    store, models = Store(root), Models.of(settings)
    last = f"style-{count - 1:04}"
    with dg.DagsterInstance.get() as instance:
        cursor: list[str | None] = [None]

        def tick() -> None:
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor[0], resources={"store": store, "models": models}
            )
            cursor[0] = new_photos(context).cursor

        _tell("first tick of new_photos", tick)
        _tell("second tick", tick)
    _tell("fashion-pipeline styles", api.styles)
    _tell("page of all styles", lambda: index_page(store, models))
    _tell("catalog of one style", lambda: catalogue(store, last))
    catalog = store.records.latest("catalog", last)
    _tell("anchors of one style", lambda: style_anchors(store, catalog, "encoder", "planted"))
    _web_server(settings.environment())


def _tell(what: str, work: Callable[[], object]) -> None:
    print(f"{what}: {timed(work):.2f} s", flush=True)


def _plant(root: Path, count: int) -> None:
    import dagster as dg

    from fashion_pipeline.core.catalog.listing import SourceSpec
    from fashion_pipeline.defs.styles import styles
    from fashion_pipeline.intake.sources import listing_state, read_source
    from fashion_pipeline.stages.catalog.sources import take_in
    from fashion_pipeline.store.store import Store

    store, random = Store(root), np.random.default_rng(0)
    names = [f"style-{number:04}" for number in range(count)]
    for name in names:
        (root / "raw" / name).mkdir(parents=True)
        for photo in range(PHOTOS):
            pixels = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(root / "raw" / name / f"{photo}.png")
    spec = SourceSpec(str(root / "raw"))
    listing = read_source(spec)
    take_in(store, spec, listing)
    entries: dict[str, list[Any]] = {}
    for entry in listing.entries:
        entries.setdefault(entry.style, []).append(entry)
    for name in names:
        _describe(store, name, [entry.location for entry in entries[name]], root)
        store.sources.mark(name, "features", listing_state(entries[name]))
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(styles.name), names)
        for asset in ASSETS:
            for name in names:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=name))


def _describe(store: Any, style: str, locations: list[str], root: Path) -> None:
    """A catalog of photos that are all in `search`, and a description with an embedding each."""
    from fashion_pipeline.core.catalog.fingerprints import fingerprint
    from fashion_pipeline.core.rows import Role
    from fashion_pipeline.intake.photos import content_id, read_bytes
    from fashion_pipeline.stages.catalog.features import SUMMARY

    rows = []
    for location in locations:
        printed, thumbnail = fingerprint(Image.open(location))
        id_ = content_id(read_bytes(location))
        told = {"id": id_, "product": id_, "product_group": id_, "split": "search", "caption": None, "attributes": []}
        size = {"width": SIDE, "height": SIDE, "bytes": 3000}
        path = str(Path(location).relative_to(root / "raw"))
        rows.append(
            {**told, **size, "path": path, "perceptual_hash": printed, "thumbnail": thumbnail.tobytes()},
        )
    ids = [row["id"] for row in rows]
    catalog = store.records.add("catalog", style, tables={"images": rows, "rejects": []})
    random = np.random.default_rng(len(style) + int(style[-4:]))
    matrix = random.normal(size=(len(ids), 64)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    for role in Role:
        store.features.add(style, role, "planted", ids, matrix)
    centre = matrix.mean(axis=0).tolist()
    values = {"facet": ["colour"], "value": ["Red"], "probability": [0.5]}
    store.records.add(
        "features",
        style,
        inputs={"catalog": catalog},
        made_of={role.value: "planted" for role in Role},
        tables={"attributes": [{"id": id_, "facet": "colour", "value": "Red", "probability": 0.5} for id_ in ids]},
        files={SUMMARY: {"photos": len(ids), "centres": {role.value: centre for role in Role}, "values": values}},
    )


def _web_server(environment: dict[str, str]) -> None:
    """Ask the web server what the UI's pages ask it."""
    port = free_port()
    command = [sys.executable, "-m", "fashion_pipeline.cli", "ui", "--port", str(port)]
    ui = subprocess.Popen(
        command,
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        began = time.monotonic()
        while True:
            try:
                _ask(port, "{ version }")
                break
            except OSError:
                time.sleep(0.5)
        print(f"web server and daemon start: {time.monotonic() - began:.0f} s", flush=True)
        for name, query in QUERIES.items():
            seconds = [timed(lambda q=query: _ask(port, q)) for _ in range(3)]  # type: ignore[misc]
            print(f"web server, {name}: {statistics.median(seconds):.2f} s", flush=True)
    finally:
        os.killpg(ui.pid, signal.SIGTERM)
        ui.wait(60)


def _ask(port: int, query: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = json.load(answer)
    if "errors" in found:
        raise RuntimeError(str(found["errors"])[:500])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--styles", type=int, default=1_000)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.styles, (given.data or Path(folder)).absolute())
