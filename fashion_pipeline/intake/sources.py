"""Reads what a source lists: a folder per style, a manifest, or the IDX files of Fashion-MNIST."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

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
    first_reasons,
    is_ignored,
    is_kohyas,
    is_of,
    is_regularisation,
    is_text,
    kohyas_note,
    masks_note,
    misplaced,
    not_text,
    style_of,
    style_slug,
    the_manifest,
    why_no_photo,
    without_masks,
    worded,
)
from fashion_pipeline.intake.buckets import read_bucket
from fashion_pipeline.intake.idx import IdxError, read_idx
from fashion_pipeline.intake.manifests import read_manifest
from fashion_pipeline.intake.objects import is_url
from fashion_pipeline.intake.photos import file_of

FASHION_MNIST = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
"""The label names of Fashion-MNIST, by label."""

_LEADS_OUT = "a link that leads out of the source: copy the photos, or name a folder that holds both as the source"


def read_source(spec: SourceSpec) -> Listing:
    """All photos of a source, unopened, and what was not taken. Raises CatalogError if there is none."""
    listing = _read(spec, "")
    if not listing.entries:
        lists = PurePosixPath(spec.path).suffix.lower() in MANIFESTS
        place = spec.path if is_url(spec.path) else str(_root(spec))
        mend = "add rows" if lists else f"put photos into {place}/<style>/"
        raise CatalogError(f"no photos in {place}{first_reasons(listing.rejects)}: {mend}")
    return listing


def read_style(spec: SourceSpec, style: str) -> Listing:
    """The photos of one style of a source, by its slug; nothing is kept of the others. There may be none.

    Raises CatalogError for a source that cannot be read.
    """
    return _read(spec, style).of(style)


def _read(spec: SourceSpec, style: str) -> Listing:
    """All that a source lists, or, where a style is named, at least what it lists of that."""
    if is_url(spec.path):
        return read_bucket(spec, style)
    root = _root(spec)
    if not root.exists():
        raise CatalogError(f"there is no {root}: name a folder with a folder per style, or a manifest")
    return _read_file(root, spec, style) if root.is_file() else _read_folder(root, spec, style)


def _root(spec: SourceSpec) -> Path:
    return Path(spec.path).expanduser().absolute()


def _read_file(path: Path, spec: SourceSpec, style: str) -> Listing:
    if path.suffix.lower() not in MANIFESTS:
        raise CatalogError(f"{path} is neither a folder nor a {' or '.join(MANIFESTS)} manifest: name one of those")
    return read_manifest(path, spec, style)


def _read_folder(root: Path, spec: SourceSpec, style: str) -> Listing:
    try:
        children = sorted(path for path in root.iterdir() if not is_ignored(path.name))
    except OSError as error:
        raise CatalogError(f"{root} cannot be read ({error.strerror}): allow reading it") from error
    idx = [path for path in children if path.name.removesuffix(".gz").endswith("idx3-ubyte")]
    if idx:
        return _read_idx_files(idx, spec, style)
    manifests = [path.name for path in children if path.suffix.lower() in MANIFESTS and path.is_file()]
    manifest = the_manifest(manifests, str(root))
    return read_manifest(root / manifest, spec, style) if manifest else _read_styles(root, children, spec, style)


def _read_styles(root: Path, children: list[Path], spec: SourceSpec, style: str) -> Listing:
    listing = Listing([], [])
    children = _of_kohya(children, listing.notes)
    for child in children if not style else (child for child in children if is_of(child.name, style)):
        if _leads_out(child, root):
            listing.rejects.append(Reject(printable(child), _LEADS_OUT))
        elif child.is_dir() and is_regularisation(child.name):
            listing.notes.append(REGULARISATION.format(child.name))
        elif child.is_dir():
            _read_style(root, child, spec, listing)
        elif child.suffix.lower() in IMAGES:
            listing.rejects.append(Reject(printable(child), misplaced(str(root))))
    return listing


def _of_kohya(children: list[Path], notes: list[str]) -> list[Path]:
    """Where the folders lie as kohya's trainer wants them (img/10_dress, log, model, reg): those of `img`."""
    for child in children:
        if child.name.lower() == "img" and child.is_dir() and not child.is_symlink():
            inside = [path for path in sorted(child.iterdir()) if path.is_dir() and not is_ignored(path.name)]
            if inside and all(is_kohyas(path.name) for path in inside):
                notes.append(f"{child.name} holds folders of kohya's trainer: each is a style")
                return inside
    return children


def _leads_out(path: Path, root: Path) -> bool:
    """Whether a path is a link out of the source: whoever may put files there could show all that we may read."""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # of links in a circle
        return True


def _read_style(root: Path, folder: Path, spec: SourceSpec, listing: Listing) -> None:
    """Add the photos below one style's folder; their captions lie beside them as texts."""
    name = style_of(folder.name)
    try:
        style = style_slug(name)
    except CatalogError as error:
        listing.rejects.append(Reject(printable(folder), str(error)))
        return
    if name != folder.name:
        listing.notes.append(kohyas_note(folder.name))
    wording = worded(spec.style_name, name)
    files = [str(path) for path in _files_below(root, folder, style, listing.rejects)]
    photos, masks = without_masks([path for path in files if Path(path).suffix.lower() in IMAGES])
    if masks:
        listing.notes.append(masks_note(folder.name, [Path(mask).name for mask in masks]))
    captions = captions_of(photos, files)
    for path in photos:
        caption = _caption(Path(captions[path]), style, listing.rejects) if path in captions else None
        listing.entries.append(Entry(style, name, wording, "", path, caption=caption))
    recognised = {*photos, *masks, *captions.values()}
    for path in files:
        if path not in recognised:
            listing.rejects.append(Reject(path, why_no_photo(Path(path)), style))


def _files_below(root: Path, folder: Path, style: str, rejects: list[Reject]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        rejects.append(Reject(str(error.filename), f"cannot be read ({error.strerror}): allow reading it", style))

    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for path in (Path(where) / name for name in sorted(names) if not is_ignored(name)):
            if not is_text(path.name):
                rejects.append(Reject(printable(path), not_text(), style))
            elif _leads_out(path, root):
                rejects.append(Reject(str(path), _LEADS_OUT, style))
            else:
                yield path
        for name in [name for name in folders if not is_text(name)]:
            folders.remove(name)
            rejects.append(Reject(printable(Path(where) / name), not_text(), style))


def printable(path: Path) -> str:
    """A path for people and tables, whatever bytes its name is made of."""
    return str(path).encode("utf-8", "replace").decode()


def _caption(path: Path, style: str, rejects: list[Reject]) -> str | None:
    try:
        return caption_of(path.read_bytes())
    except CatalogError as error:
        rejects.append(Reject(str(path), str(error), style))
    except OSError as error:
        rejects.append(Reject(str(path), f"the caption cannot be read ({error.strerror}): allow reading it", style))
    return None


def _read_idx_files(images: list[Path], spec: SourceSpec, style: str) -> Listing:
    return Listing([entry for path in images for entry in _idx_entries(path, spec, style)], [])


def _idx_entries(images: Path, spec: SourceSpec, style: str) -> Iterator[Entry]:
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labels.is_file():
        labels = labels.with_suffix("") if labels.suffix == ".gz" else labels.with_name(f"{labels.name}.gz")
    values, count = _idx_labels(labels), len(_idx_array(images))
    if len(values) != count:
        raise CatalogError(f"{labels} has {len(values)} labels for the {count} images of {images}: download both again")
    for item, label in enumerate(values):
        name = FASHION_MNIST[label]
        if style in ("", name):
            yield Entry(style_slug(name), name, worded(spec.style_name, name), "", f"{images}#{item}")


def _idx_labels(path: Path) -> list[int]:
    labels: list[int] = _idx_array(path).ravel().tolist()
    if max(labels, default=0) >= len(FASHION_MNIST):
        raise CatalogError(f"{path} has the label {max(labels)}, Fashion-MNIST has 0 to 9: is it another data set?")
    return labels


def _idx_array(path: Path) -> NDArray[np.uint8]:
    try:
        return read_idx(path)
    except IdxError as error:
        raise CatalogError(f"{path}: {error}") from error


def listing_state(entries: Iterable[Entry]) -> str:
    """A hash that changes when photos are added, removed or changed; looks at sizes and times, not into files."""
    stamps: dict[Path, str] = {}
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: (entry.location, entry.key)):
        state = entry.state
        if not state:
            path = file_of(entry.location)
            state = stamps[path] if path in stamps else stamps.setdefault(path, _file_state(path))
        parts = (entry.location, state, entry.key, entry.caption, sorted(entry.attributes.items()))
        digest.update(repr(parts).encode())
    return digest.hexdigest()[:16]


def _file_state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
