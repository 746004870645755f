"""What a source of photos is and what it lists: the values that sources give and the catalog takes."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

MAX_STYLE_LENGTH = 60

MANIFESTS = (".csv", ".parquet")
"""Suffixes of manifests."""

IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
)
"""Suffixes of files that are taken for photos."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Values, in lower case, that stand for no value."""


REGULARISATION = "{} holds images of regularisation, which are no style and are left out"

CAPTIONS = (".txt", ".caption")
"""Suffixes of texts that say what the photo of the same name shows; the first one counts where both are there."""

_MASKS = ("-masklabel", "_mask")
"""Ends of the names of masks beside their photos, as OneTrainer and others have them."""

_REPEATS = re.compile(r"\d{1,3}_(?=.*[^\W\d_])")
_REGULARISATION = frozenset(
    f"{name}{ending}" for name in ("reg", "regularization", "regularisation", "class") for ending in ("", "_images")
) - {"class"}
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class CatalogError(Exception):
    """A source or a style cannot be used; the text says what is wrong, where, and how to mend it."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns of a manifest mean what."""

    style: str
    id: str = ""
    """Column of the product key; empty if the manifest has none."""
    path: str = "images/{id}.jpg"
    """Path of the photo below the manifest's folder: columns in braces, or the name of the column that holds it."""
    caption: str = ""
    """Column of the hand-written caption; empty if the manifest has none."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Column of each facet."""

    def path_columns(self) -> list[str]:
        """The columns a photo's path is made of."""
        return re.findall(r"{([^{}]+)}", self.path) or [self.path]

    def path_in(self, row: Mapping[str, str]) -> str:
        """The path of the photo that a row names."""
        if "{" not in self.path:
            return row[self.path]
        return re.sub(r"{([^{}]+)}", lambda match: row[match[1]], self.path)


PRODUCT_PHOTOS = ColumnMapping(
    style="usage",
    id="id",
    path="images/{id}.jpg",
    attributes={
        "garment": "articleType",
        "colour": "baseColour",
        "audience": "gender",
        "season": "season",
        "usage": "usage",
    },
)
"""The layout of the public product-photo data set: styles.csv beside images/."""


@dataclass(frozen=True)
class SourceSpec:
    """Where photos come from."""

    path: str
    """A folder with a folder per style, a folder with one manifest, a manifest, or a folder with IDX files; or the URL
    of one of the first three in object storage."""
    columns: ColumnMapping | None = None
    """None recognises product photos, and manifests with the columns `style` and `path`."""
    style_name: str = ""
    """How a style is worded in the plain prompt; empty for "{style}", for product photos "{style} wear"."""

    @property
    def base(self) -> str:
        """The folder, or URL, that all its photos lie below."""
        if PurePosixPath(self.path).suffix.lower() in MANIFESTS:
            return self.path.rpartition("/")[0]
        return self.path.rstrip("/") or "/"

    def to_json(self) -> str:
        """JSON from which `from_json` makes an equal spec."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "SourceSpec":
        """Raises CatalogError if the text is not what `to_json` writes."""
        try:
            values = json.loads(text)
            if values.get("columns") is not None:
                values["columns"] = ColumnMapping(**values["columns"])
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CatalogError(f"not a photo source: {text[:200]!r} ({error})") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo that a source lists; it has not been opened yet."""

    style: str
    """Slug of the style: the partition key."""
    style_name: str
    """The style as the source writes it."""
    wording: str
    """The style as the plain prompt words it, such as "ethnic wear"."""
    key: str
    """Product key; empty if the source has none, and the content id takes its place."""
    location: str
    """What `intake.photos` opens."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    caption: str | None = None
    state: str = ""
    """What changes with the photo, where the source tells it; empty for a file, which is looked at."""


@dataclass(frozen=True)
class Reject:
    """A file or manifest row that was not taken."""

    path: str
    reason: str
    style: str = ""
    """Slug of the style it was meant for; empty if unknown."""


@dataclass(frozen=True)
class Listing:
    """All that a source lists."""

    entries: list[Entry]
    rejects: list[Reject]
    notes: list[str] = field(default_factory=list, compare=False)
    """What a person should know of how it was read."""

    def styles(self) -> list[str]:
        """The slugs of all styles, sorted."""
        return sorted({entry.style for entry in self.entries})

    def of(self, style: str) -> "Listing":
        """The part that belongs to a style; rejects of an unknown style belong to none."""
        return Listing(
            [entry for entry in self.entries if entry.style == style],
            [reject for reject in self.rejects if reject.style == style],
            self.notes,
        )


def style_of(folder: str) -> str:
    """The style that a folder's name says: of `10_red dress`, as kohya's trainer has it, without the repeats."""
    return folder.partition("_")[2] if is_kohyas(folder) else folder


def is_kohyas(folder: str) -> bool:
    """Whether a folder is called as kohya's trainer wants it: repeats of its photos, then what they show."""
    return _REPEATS.match(folder) is not None


def is_regularisation(folder: str) -> bool:
    """Whether a folder is called as those of images by which trainers remind a model of what it knew."""
    return folder.casefold() in _REGULARISATION


def kohyas_note(folder: str) -> str:
    """What to say of a folder that kohya's trainer would read."""
    repeats, _, name = folder.partition("_")
    return f"{folder} is named for kohya's trainer ({repeats} repeats, which are not used here): its style is {name!r}"


def is_of(folder: str, style: str) -> bool:
    """Whether a folder's name is one of a style's."""
    try:
        return style_slug(style_of(folder)) == style
    except CatalogError:
        return False


def is_text(name: str) -> bool:
    """Whether a name is text; others come from the operating system with their bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def not_text() -> str:
    """Why a name is no text, and how to mend it: it may be the locale that is to blame, not the name."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8":
        return f"the locale's encoding is {encoding}, in which it cannot be read: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    return "its name is not UTF-8: rename it"


def style_slug(name: str) -> str:
    """A style's partition key and folder name: "Smart Casual" → "smart-casual". Raises CatalogError."""
    if not is_text(name):
        raise CatalogError(f"style name {name.encode('utf-8', 'replace').decode()!r}: {not_text()}")
    text = unicodedata.normalize("NFKC", name).strip()
    kinds = [unicodedata.category(character)[0] for character in text]
    if text.casefold() in MISSING:
        raise CatalogError(f"style name {name!r} means 'no value': give the style a name, or leave these photos out")
    if "C" in kinds or "/" in text or "\\" in text:
        raise CatalogError(
            f"style name {name!r} has a slash or an invisible character: rename it to letters and digits"
        )
    if not {"L", "N"} & set(kinds):
        raise CatalogError(f"style name {name!r} has no letter or digit: rename it")
    kept = (c if kind in "LNM" else "-" for c, kind in zip(text, kinds, strict=True) if c not in "'’")
    slug = re.sub("-+", "-", "".join(kept)).strip("-").lower()
    if len(slug) > MAX_STYLE_LENGTH:
        raise CatalogError(f"style name {name[:80]!r} is longer than {MAX_STYLE_LENGTH} characters: shorten it")
    return slug


def worded(template: str, name: str) -> str:
    """The style as the plain prompt words it: ("{style} wear", "Smart Casual") → "smart casual wear"."""
    return (template or "{style}").replace("{style}", " ".join(name.replace("_", " ").lower().split()))


def first_reasons(rejects: Sequence[Reject], count: int = 3) -> str:
    """For messages: "; 5 rejected, first a.jpg: cut off; b.jpg: empty", or nothing."""
    if not rejects:
        return ""
    reasons = "; ".join(f"{reject.path}: {reject.reason}" for reject in rejects[:count])
    return f"; {len(rejects)} rejected, first {reasons}"


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


def why_no_photo(path: Path) -> str:
    """What is wrong with a file among photos that is none."""
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC photos cannot be read: export it as JPEG"
    if path.suffix.lower() in CAPTIONS:
        return "a text with no photo of the same name beside it: name it after its photo, or remove it"
    return f"{path.suffix or 'a file without a suffix'} is no image: replace it by a JPEG or PNG, or remove it"


def without_masks(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of images, and of masks among them: those called after another one, beside it or in a folder `masks`."""
    stems = {str(PurePosixPath(name).with_suffix("")) for name in names}

    def masked(name: str) -> bool:
        path = PurePosixPath(name)
        beside = (str(path.with_name(path.stem.removesuffix(end))) for end in _MASKS if path.stem.endswith(end))
        above = [str(path.parent.parent / path.stem)] if path.parent.name.lower() in ("mask", "masks") else []
        return any(each in stems for each in (*beside, *above))

    masks = [name for name in names if masked(name)]
    return [name for name in names if name not in set(masks)], masks


def masks_note(folder: str, masks: Sequence[str]) -> str:
    """What to say of masks among photos."""
    return f"{folder}: {len(masks)} masks, such as {masks[0]}, are no photos and are left out; masks are not used"


def captions_of(photos: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Photo → the text beside it that has its name, however the suffix is written."""
    texts: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if (suffix := path.suffix.lower()) in CAPTIONS:
            stem = str(path.with_suffix(""))
            texts[stem] = name if suffix == CAPTIONS[0] else texts.get(stem, name)
    captions = {photo: texts.get(str(PurePosixPath(photo).with_suffix(""))) for photo in photos}
    return {photo: text for photo, text in captions.items() if text is not None}


def the_manifest(names: Sequence[str], source: str) -> str | None:
    """The one manifest of a source, if there is any. Raises CatalogError where there are several."""
    if len(names) > 1:
        listed = ", ".join(names)
        raise CatalogError(f"{source} has {len(names)} manifests ({listed}): name the one to read as the source")
    return names[0] if names else None


def misplaced(source: str) -> str:
    """What is wrong with a photo that lies beside the folders of the styles."""
    return f"lies in no style's folder: move it into {source}/<style>/"


def caption_of(data: bytes) -> str | None:
    """The caption in the bytes of a text, on one line; None for an empty one. Raises CatalogError for other bytes."""
    try:
        return " ".join(data.decode("utf-8-sig").split()) or None
    except UnicodeDecodeError as error:
        raise CatalogError(f"the caption is not UTF-8 text ({error.reason}): save it as UTF-8") from error
