"""Photos in object storage: a folder per style, or a manifest, as on a disk."""

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from fashion_pipeline.core.catalog.listing import (
    IMAGES,
    MANIFESTS,
    REGULARISATION,
    CatalogError,
    Entry,
    Listing,
    Reject,
    SourceSpec,
    caption_of,
    captions_of,
    is_ignored,
    is_kohyas,
    is_of,
    is_regularisation,
    kohyas_note,
    masks_note,
    misplaced,
    style_of,
    style_slug,
    the_manifest,
    why_no_photo,
    without_masks,
    worded,
)
from fashion_pipeline.intake.manifests import read_manifest
from fashion_pipeline.intake.objects import is_url, opened, refusal, silence


def read_bucket(spec: SourceSpec, style: str = "") -> Listing:
    """The photos below a URL, of all styles or one. Raises CatalogError that says what is wrong and how to mend it."""
    bucket = _Bucket(spec.base)
    try:
        if PurePosixPath(spec.path).suffix.lower() in MANIFESTS:
            return bucket.manifest(PurePosixPath(spec.path).name, spec, style)
        names = bucket.names()
        manifests = [name for name in names if "/" not in name and PurePosixPath(name).suffix.lower() in MANIFESTS]
        manifest = the_manifest(manifests, spec.path)
        return bucket.manifest(manifest, spec, style) if manifest else bucket.styles(names, spec, style)
    except CatalogError:
        raise
    except Exception as error:  # the clients of object storage raise whatever happened to them
        message = refusal(spec.path, error) or silence(spec.path, error)
        if isinstance(error, FileNotFoundError) and not refusal(spec.path, error):
            message = f"there is no {spec.path}: name a folder with a folder per style, or a manifest"
        raise CatalogError(message) from error


_LISTED = "listed"
"""The state of a photo that a manifest names: asking for each would take as many requests. One that is replaced under
its name is noticed when its style is catalogued."""


class _Bucket:
    """What lies below a URL."""

    def __init__(self, base: str) -> None:
        try:
            self._fs, self._path = opened(base)
        except ValueError as error:
            raise CatalogError(str(error)) from error
        self._base = base
        self._known: dict[str, dict[str, Any]] = {}

    def names(self) -> list[str]:
        """What lies below it, sorted, without hidden files and clutter."""
        objects = self._fs.find(self._path, detail=True)
        self._known = {key.removeprefix(f"{self._path}/"): about for key, about in objects.items()}
        return sorted(name for name in self._known if not any(is_ignored(part) for part in name.split("/")))

    def manifest(self, name: str, spec: SourceSpec, style: str) -> Listing:
        """The photos that a manifest lists; whether they are there shows when they are read."""
        data = bytes(self._fs.cat_file(f"{self._path}/{name}"))
        with tempfile.TemporaryDirectory(prefix="manifest-") as folder:
            file = Path(folder) / name
            file.write_bytes(data)
            try:
                listing = read_manifest(file, spec, style, self._inside)
            except CatalogError as error:
                raise CatalogError(str(error).replace(str(file), spec.path)) from error
        return replace(listing, entries=[replace(entry, state=_LISTED) for entry in listing.entries])

    def styles(self, names: list[str], spec: SourceSpec, only: str) -> Listing:
        """The photos of each folder, or of one style's, and the texts beside them as captions."""
        listing = Listing([], [])
        if only:
            folders = {folder for folder in {name.partition("/")[0] for name in names} if is_of(folder, only)}
            names = [name for name in names if name.partition("/")[0] in folders]
        images, masks = without_masks([name for name in names if PurePosixPath(name).suffix.lower() in IMAGES])
        photos, captions, told = set(images), captions_of(images, names), set[str]()
        known = {*photos, *masks, *captions.values()}
        if masks:
            listing.notes.append(masks_note(self._base, masks))
        for name in names:
            location = f"{self._base}/{name}"
            folder, _, rest = name.partition("/")
            if rest and is_regularisation(folder):
                if folder not in told:
                    listing.notes.append(REGULARISATION.format(folder))
                told.add(folder)
                continue
            if not rest:
                if name in photos:
                    listing.rejects.append(Reject(location, misplaced(self._base)))
                continue
            if is_kohyas(folder) and folder not in told:
                listing.notes.append(kohyas_note(folder))
                told.add(folder)
            try:
                style = style_slug(style_of(folder))
            except CatalogError as error:
                listing.rejects.append(Reject(location, str(error)))
                continue
            if name in photos:
                caption = self._caption(captions[name], style, listing.rejects) if name in captions else None
                own = style_of(folder)
                wording, state = worded(spec.style_name, own), self._state(name)
                listing.entries.append(Entry(style, own, wording, "", location, caption=caption, state=state))
            elif name not in known:
                listing.rejects.append(Reject(location, why_no_photo(Path(name)), style))
        return listing

    def _state(self, name: str) -> str:
        about = self._known[name]
        changed = about.get("ETag") or about.get("etag") or about.get("LastModified") or about.get("mtime")
        return f"{about.get('size')} {changed}"

    def _caption(self, name: str, style: str, rejects: list[Reject]) -> str | None:
        try:
            return caption_of(_text_at(f"{self._base}/{name}", self._state(name)))
        except CatalogError as error:
            rejects.append(Reject(f"{self._base}/{name}", str(error), style))
            return None

    def _inside(self, path: str) -> str:
        """A photo's URL; refused if it leads out of the manifest's folder."""
        relative = path.removeprefix(f"{self._base}/")
        if is_url(relative) or relative.startswith("/") or ".." in PurePosixPath(relative).parts:
            raise CatalogError(f"{path!r} lies outside {self._base}: move the photo below it and correct the row")
        return f"{self._base}/{relative}"


@lru_cache(maxsize=1 << 16)
def _text_at(url: str, state: str) -> bytes:
    """The bytes of a text. `state` is part of the cache's key: what has not changed since is not asked for again."""
    fs, path = opened(url)
    return bytes(fs.cat_file(path))
