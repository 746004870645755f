"""The catalog: the photos of a style, opened once, identified by content, and assigned to product groups and splits."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, Gallery
from fashion_pipeline.core.catalog.listing import CatalogError, Entry, Reject, first_reasons
from fashion_pipeline.core.catalog.splits import Assignment, assign_splits, split_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.intake.decoding import AT_ONCE, decoders
from fashion_pipeline.intake.photos import PhotoError, below, content_id, on_disk, read_bytes

MIN_PHOTOS = 8
"""A style with fewer usable photos is refused."""

SHOWN_REJECTS = 20
"""Rejects that are named where a style is refused, since no table of it will be."""

HOMES = ("id", "product", "product_group", "split")
"""Columns of table `images` that tell where a photo belongs."""

Row = dict[str, object]


@dataclass(frozen=True)
class Catalog:
    """The tables `images` and `rejects` of one style."""

    images: pa.Table
    rejects: pa.Table


@dataclass(frozen=True)
class Known:
    """What is catalogued: it keeps its group and split, and draws near-duplicates to itself."""

    own: pa.Table
    """Table `images` of the style itself."""
    others: pa.Table
    """Columns HOMES of the photos of all other styles."""
    gallery: Gallery
    """The fingerprints of those, in the same order."""

    @cached_property
    def homes(self) -> pa.Table:
        """Columns HOMES of all photos: those of the style, then the others."""
        return pa.concat_tables([part.select(list(HOMES)) for part in (self.own, self.others)])

    def near(self, prints: Fingerprints) -> list[tuple[int, int, float]]:
        """(position among `prints`, row of `homes`, distance) of near-duplicates, sorted."""
        pairs = list(Gallery([lambda: known_prints(self.own)]).near(prints)) if self.own.num_rows else []
        return sorted([*pairs, *((i, self.own.num_rows + j, distance) for i, j, distance in self.gallery.near(prints))])


@dataclass(frozen=True)
class Withdrawn:
    """Photos that must not be taken in again."""

    ids: Sequence[str]
    prints: Fingerprints
    """In the same order."""


@dataclass(frozen=True)
class _Found:
    """A photo as it lies in the source: a row without group and split, or why there is none."""

    entry: Entry
    id: str = ""
    row: Row | None = None
    print: tuple[int, NDArray[np.uint8]] | None = None
    """None for a photo whose row is known."""
    fault: str = ""
    note: str = ""
    """What a person should know of a photo that is used."""

    @property
    def order(self) -> tuple[str, str]:
        """Photos are taken in this order, whatever order the source lists them in."""
        return self.entry.key or self.id, self.entry.location


def build_catalog(
    style: str,
    entries: Sequence[Entry],
    known: Known,
    *,
    rejects: Sequence[Reject] = (),
    base: str = "",
    withdrawn: Withdrawn | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Catalog:
    """The catalog of `style` from all its entries.

    Photos that are known keep their group and split, and those of this style are not decoded again. `rejects` are the
    source's own, `base` is the folder or URL of the source, below which photos are listed; `withdrawn` photos and their
    near-duplicates are refused; `progress` is called with (done, all), and `tell` with what a person should know of
    photos that are used. Raises CatalogError with fewer than MIN_PHOTOS
    usable photos.
    """
    stored: dict[str, Row] = {row["id"]: row for row in known.own.to_pylist()}
    refused = list(rejects)
    inspected = _without_copies(_inspect_all(entries, set(stored), progress), refused)
    inspected = _without_withdrawn(inspected, stored, withdrawn, refused) if withdrawn else inspected
    for photo in inspected:
        if photo.note:
            tell(f"{photo.entry.location}: {photo.note}")
    reused = [stored[photo.id] | _from_source(photo.entry, base) for photo in inspected if photo.id in stored]
    added = _assigned([photo for photo in inspected if photo.id not in stored], known, refused)
    located = {photo.id: _from_source(photo.entry, base) for photo in inspected}
    rows = sorted(
        [*reused, *({**row, **located[str(row["id"])]} for row in added)],
        key=lambda row: (str(row["product"]), str(row["path"])),
    )
    if len(rows) < MIN_PHOTOS:
        raise CatalogError(
            f"style {style!r} has {len(rows)} usable photos under {base}: at least {MIN_PHOTOS} are needed; "
            f"add photos, or remove the style{first_reasons(refused, SHOWN_REJECTS)}"
        )
    listed: list[Row] = [{"path": reject.path, "reason": reject.reason} for reject in refused]
    return Catalog(rows_to_table("images", rows), rows_to_table("rejects", listed))


def _inspect_all(
    entries: Sequence[Entry], stored: set[str], progress: Callable[[int, int], None] | None
) -> Iterator[_Found]:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for done, photo in enumerate(pool.map(lambda entry: _inspect(entry, stored), entries), start=1):
            if progress:
                progress(done, len(entries))
            yield photo


def _inspect(entry: Entry, stored: set[str]) -> _Found:
    """Read one photo, and have it decoded unless its content is stored."""
    try:
        data = read_bytes(entry.location)
        identity = content_id(data)
        if identity in stored:
            return _Found(entry, identity)
        with on_disk(entry.location, data) as place:
            photo = decoders().inspect(place)
    except PhotoError as error:
        return _Found(entry, fault=str(error))
    row: Row = {"width": photo.width, "height": photo.height, "bytes": photo.bytes}
    return _Found(entry, photo.id, row, photo.print, note=photo.note)


def _without_copies(photos: Iterator[_Found], refused: list[Reject]) -> list[_Found]:
    """The usable photos in order, each content once."""
    first: dict[str, _Found] = {}
    for photo in sorted(photos, key=lambda photo: photo.order):
        if photo.fault:
            refused.append(_reject(photo, photo.fault))
        elif photo.id in first:
            original = first[photo.id].entry.location
            refused.append(_reject(photo, f"the same file as {original}: remove one of the two"))
        else:
            first[photo.id] = photo
    return list(first.values())


def _without_withdrawn(
    photos: list[_Found], stored: dict[str, Row], withdrawn: Withdrawn, refused: list[Reject]
) -> list[_Found]:
    """The photos that were not withdrawn, and look like none that was."""
    prints = [photo.print or _stored_print(stored[photo.id]) for photo in photos]
    near = {place for place, _, _ in Gallery([lambda: withdrawn.prints]).near(Fingerprints.stack(prints))}
    kept = []
    for place, photo in enumerate(photos):
        if photo.id in withdrawn.ids:
            refused.append(_reject(photo, "it was withdrawn: delete the file"))
        elif place in near:
            refused.append(_reject(photo, "nearly the same as a photo that was withdrawn: delete the file"))
        else:
            kept.append(photo)
    return kept


def _stored_print(row: Row) -> tuple[int, NDArray[np.uint8]]:
    thumbnail = np.frombuffer(bytes(row["thumbnail"]), np.uint8)  # type: ignore[call-overload]
    return int(str(row["perceptual_hash"])), thumbnail.reshape(16, 16, 3)


def _reject(photo: _Found, reason: str) -> Reject:
    return Reject(photo.entry.location, reason, photo.entry.style)


def _from_source(entry: Entry, base: str) -> Row:
    """What may change while the photo stays the same."""
    path = below(entry.location, base)
    return {"path": path, "attributes": dict(entry.attributes), "caption": entry.caption}


def _assigned(photos: list[_Found], known: Known, refused: list[Reject]) -> list[Row]:
    """Rows of photos that are new to the style, with group and split; those between two splits are refused."""
    if not photos:
        return []
    prints = Fingerprints.stack([photo.print for photo in photos if photo.print is not None])
    keys = [photo.entry.key or photo.id for photo in photos]
    result = assign_splits(keys, prints, _near_founders(prints, known))
    same = known.homes.filter(pc.is_in(known.homes["product"], pa.array(keys)))
    homes = dict(zip(same["product"].to_pylist(), same["split"].to_pylist(), strict=True))
    rows: list[Row] = []
    for position, photo in enumerate(photos):
        if reason := _between(position, keys[position], result, homes):
            refused.append(_reject(photo, reason))
            continue
        homes[keys[position]] = result.splits[position]
        rows.append(_row(photo, keys[position], prints, result, position))
    return rows


def _between(position: int, key: str, result: Assignment, homes: dict[str, str]) -> str:
    """Why a photo would carry something from one split into another; empty if it would not."""
    bridge = result.bridges[position]
    if bridge:
        first, second = (f"product {group} (split {split_of(group)})" for group in bridge)
        return f"nearly the same photo as {first} and as {second}, which must not mix: remove one of the three"
    group, split = result.groups[position], result.splits[position]
    home = homes.get(key, split)
    if home != split:
        return (
            f"it falls into split {split} with product {group}, but product {key} has photos in split {home}, "
            "as some are nearly the same as another product's: remove those, or give both products one key"
        )
    return ""


def _row(photo: _Found, key: str, prints: Fingerprints, result: Assignment, position: int) -> Row:
    return {
        "id": photo.id,
        "product": key,
        "product_group": result.groups[position],
        "split": result.splits[position],
        "perceptual_hash": int(prints.hashes[position]),
        "thumbnail": prints.thumbnails[position].tobytes(),
        **(photo.row or {}),
    }


def _near_founders(prints: Fingerprints, known: Known) -> dict[int, list[tuple[float, str]]]:
    """Position → (distance, group) of the groups whose founder is nearly the same photo."""
    near = known.near(prints)
    groups = _founded(known.homes).take(pa.array([row for _, row, _ in near], pa.int64())).to_pylist()
    founders: dict[int, list[tuple[float, str]]] = {}
    for (position, _, distance), group in zip(near, groups, strict=True):
        if group is not None:
            founders.setdefault(position, []).append((distance, group))
    return founders


def _founded(homes: pa.Table) -> pa.Array:
    """(n,) the group that each photo founded, else null; where its founder has gone, its first photo stands for it."""
    groups = homes["product_group"].combine_chunks()
    founder = pc.equal(homes["product"].combine_chunks(), groups)
    orphan = pc.invert(pc.is_in(groups, value_set=pc.unique(groups.filter(founder))))
    stands = np.array(founder)
    seen: set[str] = set()
    for row in np.flatnonzero(orphan):
        stands[row] = (group := groups[row].as_py()) not in seen
        seen.add(group)
    return pc.if_else(pa.array(stands), groups, None)


def known_prints(images: pa.Table) -> Fingerprints:
    """The fingerprints of the rows of a table `images`."""
    thumbnails = np.frombuffer(b"".join(images["thumbnail"].to_pylist()), np.uint8)
    hashes = images["perceptual_hash"].to_numpy().astype(np.uint64)
    return Fingerprints(hashes, thumbnails.reshape(len(hashes), 16, 16, 3))


def torn_near_duplicates(known: Known) -> list[tuple[str, str]]:
    """Pairs of ids of a photo of the style and one of any that is nearly the same and lies in another split; none is
    right."""
    ids, splits = (known.homes[name].to_pylist() for name in ("id", "split"))
    own_rows = known.own.num_rows
    pairs = [(i, j) for i, j, _ in known.near(known_prints(known.own)) if i < j or j >= own_rows]
    return [(ids[i], ids[j]) for i, j in pairs if splits[i] != splits[j]]


def near_held_out(ids: Collection[str], known: Known) -> list[str]:
    """Those of some photos of the style that are held out, or nearly the same as a held-out one of any style."""
    wanted = known.own.filter(pc.is_in(known.own["id"], pa.array(list(ids), pa.string())))
    out = pc.not_equal(known.homes["split"], "search").to_pylist()
    there = wanted["id"].to_pylist()
    return sorted({there[i] for i, j, _ in known.near(known_prints(wanted)) if out[j]})
