"""What lies in the data root, for a browser: pictures on asset pages, reports, and everything behind a version.

It is only read, under `/fashion/` of the web server that also serves the Dagster UI. Names come from addresses, so each
is checked before it becomes a path; a page may load pictures from here and nothing else, and runs no script.
"""

import re
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.core.names import REPORT_PAGE
from fashion_pipeline.core.reports.links import ROOT, page_link
from fashion_pipeline.core.reports.pictures import jpeg_bytes
from fashion_pipeline.core.reports.trail import render_trail
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.pages import index_text
from fashion_pipeline.stages.publishing.trails import version_photo, version_trail
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.store import Store

PHOTO_SIDE = 512
"""Pixels of the longer side of a photo."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

Answer = Callable[[Request], Response]


class Pages:
    """The answers, each from an address to a file or a page. StorageError becomes 404 with its text."""

    def __init__(self, store: Store, models: Models) -> None:
        self._store, self._models = store, models

    def routes(self) -> list[BaseRoute]:
        """All addresses under `/fashion`."""
        answers: dict[str, Answer] = {
            "/": self.index,
            "/samples/{name}": self.sample,
            "/pictures/{kind}/{style}/{key}/{name}": self.picture,
            "/records/{kind}/{style}/{key}": self.page,
            "/versions/{style}/{version}": self.version,
            "/versions/{style}/{version}/report": self.version_report,
            "/versions/{style}/{version}/photos/{photo}": self.version_photo,
        }
        return [Mount(ROOT, routes=[Route(path, _answering(answer)) for path, answer in answers.items()])]

    def index(self, request: Request) -> Response:
        """The page of all styles."""
        return HTMLResponse(index_text(self._store, self._models, _address))

    def sample(self, request: Request) -> Response:
        """A generated image; what it shows never changes."""
        name = request.path_params["name"].removesuffix(".png")
        if not re.fullmatch("[0-9a-f]{8,64}", name):
            raise StorageError(f"{name!r} is no sample")
        return _file(self._store.samples.path(name))

    def picture(self, request: Request) -> Response:
        """A picture of an asset page."""
        return _file(
            self._store.pictures.path(*(request.path_params[part] for part in ("kind", "style", "key", "name")))
        )

    def page(self, request: Request) -> Response:
        """The page of a prompt report or evaluation."""
        kind, style, key = (request.path_params[part] for part in ("kind", "style", "key"))
        record = self._store.records.find(kind, style, key) if kind in KINDS else None
        if record is None:
            raise StorageError(f"style {style!r} has no {kind} {key}: it was removed, or never made")
        return _file(record.path(REPORT_PAGE))

    def version(self, request: Request) -> Response:
        """Everything behind a version."""
        style, version = request.path_params["style"], request.path_params["version"]
        part = request.query_params.get("part", "1")
        shown = version_trail(self._store, style, version, int(part) if part.isdecimal() else 1)
        return HTMLResponse(render_trail(shown))

    def version_report(self, request: Request) -> Response:
        """The report of a version."""
        return _file(
            self._store.versions.part(request.path_params["style"], request.path_params["version"], REPORT_PAGE)
        )

    def version_photo(self, request: Request) -> Response:
        """A photo that went into a version."""
        style, version, photo = (request.path_params[part] for part in ("style", "version", "photo"))
        image = version_photo(self._store, style, version, photo, PHOTO_SIDE)
        return Response(jpeg_bytes(image), media_type="image/jpeg")


def _address(record: Record) -> str:
    """Where the page of a prompt report or evaluation is served."""
    return page_link(record.kind, record.style, record.key)


def _answering(answer: Answer) -> Callable[[Request], object]:
    async def answered(request: Request) -> Response:
        try:
            found = await run_in_threadpool(answer, request)
        except (StorageError, CatalogError) as error:
            found = PlainTextResponse(str(error), status_code=404)
        found.headers.update(HEADERS)
        return found

    return answered


def _file(path: Path) -> Response:
    if not path.is_file():
        raise StorageError(f"{path.name} is not there any more: materialise its asset again")
    return FileResponse(path)
