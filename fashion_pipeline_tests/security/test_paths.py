"""Paths that people, manifests and addresses name stay inside their root: 500 attempts to get out."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from starlette.applications import Starlette

from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store
from fashion_pipeline.web.pages import Pages

ATTEMPTS = 500
SECRET = "the secret outside"


def attempts() -> Iterator[str]:
    """Names that lead somewhere else, made of steps up, separators, encodings and the names of real files."""
    chosen = random.Random(0)
    ups = (
        "..",
        "../..",
        "..\\..",
        "....//",
        "%2e%2e",
        "%252e%252e",
        "．．",
        "..%c0%af",
        "..;",
        ". .",
        "..\0",
        "~",
        "/",
    )
    ends = ("secret", "secret.png", "layout.json", "dagster_home/dagster.yaml", "etc/passwd", "settings.toml", "")
    joints = ("/", "\\", "//", "%2f", "%5c", "∕", "/./")
    for _ in range(ATTEMPTS):
        parts = [chosen.choice(ups) for _ in range(chosen.randint(1, 5))]
        joint = chosen.choice(joints)
        start = chosen.choice(("", "", "/", "coat/", "file://", "C:\\"))
        yield start + joint.join([*parts, chosen.choice(ends)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A data root with a secret beside it and one in it that no page may serve."""
    store = Store(tmp_path / "root" / "data")
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "photos")))
    for place in (tmp_path, tmp_path / "root", store.root):
        for name in ("secret", "secret.png", "settings.toml"):
            (place / name).write_text(SECRET)
    return store


def test_no_name_leads_out_of_the_data_root(store: Store) -> None:
    placed = 0
    doors: list[Callable[[str], Path]] = [
        lambda name: store.files.inside("published", name),
        lambda name: store.samples.path(name),
        lambda name: store.locks.style(name),
        lambda name: store.training_folder("coat", name),
        lambda name: store.versions.folder("coat", name),
        lambda name: store.versions.folder(name, "v1"),
        lambda name: store.records._folder("catalog", name, "key"),
        lambda name: store.records._folder("catalog", "coat", name),
        lambda name: store.pictures.path("catalog", "coat", "key", name),
        lambda name: store.pictures.path(name, "coat", "key", "a"),
    ]
    for name in attempts():
        for door in doors:
            try:
                path = door(name)
            except (StorageError, CatalogError, KeyError):
                continue
            placed += 1
            assert Path(os.path.normpath(path)).is_relative_to(store.root) and "\0" not in str(path), name
    assert placed > 50, "names that are merely odd are refused too: nothing was tried"


async def asked(app: Starlette, path: str) -> tuple[int, bytes]:
    """Status and body of an answer, for a path exactly as the server hands it over: no client has tidied it."""
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode("utf-8", "replace")}
    scope |= {"query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 1)}
    status, body = 0, b""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    await app(scope, receive, send)
    return status, body


def test_no_address_shows_what_is_not_a_page(store: Store) -> None:
    app = Starlette(routes=Pages(store, Models("embedded")).routes())
    places = ("samples/{}", "pictures/catalog/coat/key/{}", "records/{}/coat/key", "versions/coat/{}/report")

    async def ask_all() -> int:
        tried = 0
        for name in attempts():
            for path in (name, unquote(name)):
                for place in places:
                    tried += 1
                    status, body = await asked(app, f"/fashion/{place.format(path)}")
                    assert status in (307, 404) and SECRET.encode() not in body, (path, status)
        return tried

    assert asyncio.run(ask_all()) == 8 * ATTEMPTS


def test_no_row_of_a_manifest_names_a_photo_outside(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    (folder / "coat").mkdir(parents=True)
    Image.new("RGB", (32, 32), "navy").save(folder / "good.png")
    for place in (tmp_path, tmp_path / "a", folder / "coat"):
        (place / "secret.png").symlink_to("/etc/passwd")
    rows = [f'coat,"{name}"' for name in attempts() if "\0" not in name and '"' not in name]
    (folder / "m.csv").write_text("\n".join(["style,path", "coat,good.png", *rows]), encoding="utf-8")
    listing = read_source(SourceSpec(str(folder)))
    assert [Path(entry.location).name for entry in listing.entries] == ["good.png"]
    assert len(listing.rejects) == len(rows) > ATTEMPTS / 2


def test_a_style_is_named_by_a_slug_whatever_its_folder_is_called(store: Store) -> None:
    for name in attempts():
        try:
            store.sources.register(name, "x", SourceSpec("/photos"))
        except (StorageError, CatalogError):
            continue
        assert not set("/\\\0") & set(name)
    outside = [path for path in store.root.parent.rglob("*.json") if not path.is_relative_to(store.root)]
    assert not outside


def test_links_out_of_a_folder_of_photos_are_not_followed(tmp_path: Path) -> None:
    elsewhere, photos = tmp_path / "elsewhere", tmp_path / "photos"
    for folder in (elsewhere, photos / "coat"):
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), "navy").save(folder / "a.png")
    (photos / "coat" / "out.png").symlink_to(elsewhere / "a.png")
    (photos / "coat" / "in.png").symlink_to(photos / "coat" / "a.png")
    (photos / "coat" / "circle.png").symlink_to("circle.png")
    (photos / "dress").symlink_to(elsewhere)
    (photos / "coat" / "deep").symlink_to(elsewhere)
    listing = read_source(SourceSpec(str(photos)))
    assert [Path(entry.location).name for entry in listing.entries] == ["a.png", "in.png"]
    refused = {Path(reject.path).name: reject.reason for reject in listing.rejects}
    assert {"out.png", "circle.png", "dress"} <= set(refused)
    assert all("leads out of the source" in reason for reason in refused.values())
    (tmp_path / "link").symlink_to(photos)
    assert len(read_source(SourceSpec(str(tmp_path / "link"))).entries) == 2


def test_a_data_root_is_a_folder_of_its_own_wherever_the_environment_says(tmp_path: Path) -> None:
    assert Settings(tmp_path, "embedded", "auto", "auto").dagster_home.is_relative_to(tmp_path)
