"""Photos as people have them, decoded to what the rest of the program expects: upright RGB of bounded size.

A location is a file, item n of a Fashion-MNIST images file (`train-images-idx3-ubyte.gz#n`), or the URL of an object.
Colours come out in sRGB: by the photo's own ICC profile, if it has one.
"""

import hashlib
import io
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from fashion_pipeline.core.catalog.fingerprints import BLANK_RANGE
from fashion_pipeline.intake.idx import IdxError, read_idx
from fashion_pipeline.intake.objects import is_url, opened, refusal, silence

MAX_PIXELS = 150_000_000
"""Images that declare more pixels are refused before a pixel is decoded."""

MAX_BYTES = 512 << 20
"""Larger files are refused before they are read."""

MIN_SIDE = 16
"""Images with fewer pixels on one side show nothing that could be learnt."""

MOST_ELONGATED = 250
"""Images whose longer side is more times the shorter one are refused: they are no photos of garments."""

GROUNDS = ((255, 255, 255), (110, 110, 110))
"""What transparent images are put on: white, unless what they show is nearly as bright; then grey."""

LEAST_CONTRAST = 48.0
"""Of 255, between the mean brightness of what is shown and a white ground."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_LARGE = 25_000_000
_LARGE_ONE_AT_A_TIME = threading.Lock()
_IDX_ITEM = re.compile(r"(?P<file>.+idx3-ubyte(?:\.gz)?)#(?P<item>\d+)")
_IDX_SIDE = 64
_ORIENTATION_TAG = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp\0"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own limit would warn from 89 megapixels on, which cameras reach.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class PhotoError(Exception):
    """A photo cannot be used; the text says what is wrong with it and how to mend it."""


class LargePhotoError(Exception):
    """A photo is so large that it is to be decoded while no other is."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo and what is known of the original."""

    image: Image.Image
    """RGB, upright, no side longer than asked for unless the other one would be shorter than MIN_SIDE."""
    width: int
    """Pixels of the original, after rotation."""
    height: int
    """Pixels of the original, after rotation."""
    note: str = ""
    """What a person should know, though the photo is used."""


def open_photo(location: str, max_side: int = 1024, content: str = "") -> Image.Image:
    """The photo as upright RGB, no side longer than `max_side` pixels unless the other one would be under MIN_SIDE.

    Raises PhotoError, also where it is not the photo with the id `content` any more.
    """
    data = read_bytes(location)
    if content and content_id(data) != content:
        raise PhotoError("it was replaced by another photo since the catalog was made: materialise raw_images again")
    return decode_photo(location, data, max_side).image


def read_bytes(location: str) -> bytes:
    """The bytes of the file, or of the item of an IDX file. Raises PhotoError."""
    if item := _idx_item(location):
        return _idx_pixels(*item).tobytes()
    if is_url(location):
        return _object_bytes(location)
    path = Path(location)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError("no regular file but a folder, pipe or device: put a photo there, or remove it")
        _check_bytes(status.st_size)
        return path.read_bytes()
    except OSError as error:
        raise PhotoError(f"the file cannot be read ({error.strerror}): check that it exists and may be read") from error


def _object_bytes(url: str) -> bytes:
    try:
        fs, path = opened(url)
        _check_bytes(int(fs.info(path)["size"] or 0))
        return bytes(fs.cat_file(path))
    except PhotoError:
        raise
    except Exception as error:  # the clients of object storage raise whatever happened to them
        if refused := refusal(url, error):
            raise PhotoError(refused) from error
        if isinstance(error, FileNotFoundError):
            raise PhotoError("there is no such object: check that it exists and may be read") from error
        raise ConnectionError(silence(url, error)) from error


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise PhotoError(f"the file has {size >> 20} MiB, more than {MAX_BYTES >> 20}: export it smaller")


@contextmanager
def on_disk(location: str, data: bytes) -> Iterator[str]:
    """Where `data`, which `read_bytes(location)` returned, lies for a process that has no access to its source."""
    if not is_url(location):
        yield location
        return
    with tempfile.NamedTemporaryFile(prefix="photo-") as file:
        file.write(data)
        file.flush()
        yield file.name


def require_content(image: Image.Image) -> None:
    """Raise PhotoError for an RGB image that is one colour all over; a fully transparent one has become white."""
    if int(np.ptp(np.asarray(image), axis=(0, 1)).max()) <= BLANK_RANGE:
        raise PhotoError("it shows nothing, being one colour all over or fully transparent: replace or remove it")


def located(path: str, base: str) -> str:
    """The location of a photo that a catalog lists below the folder or URL of its source."""
    return path if is_url(path) or path.startswith("/") else f"{base}/{path}"


def below(location: str, base: str) -> str:
    """A location as a catalog lists it: below the folder of its source, wherever that lies; whole where it is not."""
    return location.removeprefix(f"{base}/")


def file_of(location: str) -> Path:
    """The file that holds the photo."""
    item = _idx_item(location)
    return item[0] if item else Path(location)


def content_id(data: bytes) -> str:
    """A photo's identity: the first 16 hexadecimal digits of the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def decode_photo(location: str, data: bytes, max_side: int = 1024, *, large: bool = True) -> Photo:
    """The photo in `data`, which `read_bytes(location)` returned.

    Raises PhotoError, LargePhotoError for a large one unless `large`, and MemoryError.
    """
    if item := _idx_item(location):
        image = _enlarged(_idx_pixels(*item))
        return Photo(image, image.width, image.height)
    if not data:
        raise PhotoError("the file is empty (0 bytes): copy it again or delete it")
    try:
        with Image.open(io.BytesIO(without_texts(data)), formats=_FORMATS) as stored:
            _check_size(stored.width, stored.height)
            return _decoded(stored, max_side, large)
    except (PhotoError, LargePhotoError, MemoryError):
        raise
    except Exception as error:  # the decoders of ten formats raise whatever a broken file makes them trip over
        raise PhotoError(_explained(error, data)) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PhotoError(_too_many_pixels(f"{width:,} x {height:,}"))
    if min(width, height) < MIN_SIDE:
        raise PhotoError(f"only {width} x {height} pixels: use a photo with {MIN_SIDE} or more on each side")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise PhotoError(f"a strip of {width} x {height} pixels: crop it to the garment")


def _too_many_pixels(size: str) -> str:
    return f"too many pixels ({size}, the limit is {MAX_PIXELS // 10**6} megapixels): export it smaller"


def _explained(error: Exception, data: bytes) -> str:
    text = str(error)
    if isinstance(error, UnidentifiedImageError):
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
            return "HEIC photos cannot be read: export it as JPEG"
        return "not an image of a known kind: replace it by a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file"
    if isinstance(error, Image.DecompressionBombError):
        return _too_many_pixels(text)
    if "truncated" in text.lower() or "broken data stream" in text:
        return f"the file is cut off ({text}): copy or download it again"
    return f"the image is damaged ({type(error).__name__}: {text}): export or download it again"


def without_texts(data: bytes) -> bytes:
    """A PNG without the texts in it; other bytes as they are.

    Pillow refuses files with large ones as bombs, and programs keep whole workflows there. What Adobe's XMP says stays:
    it may tell the orientation. Chunks: https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept, at = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        text = kind in (b"tEXt", b"zTXt") or (kind == b"iTXt" and not data.startswith(_XMP, at + 8))
        if not text:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _decoded(stored: Image.Image, max_side: int, large: bool) -> Photo:
    """The first frame. Large images are decoded one at a time: each may take 600 MB for a moment."""
    width, height = stored.size
    max_side = max(max_side, -(-MIN_SIDE * max(width, height) // min(width, height)))
    stored.draft(None, (max_side, max_side))
    if stored.width * stored.height > _LARGE:
        if not large:
            raise LargePhotoError
        with _LARGE_ONE_AT_A_TIME:
            image, note = _shrunk(stored, max_side)
    else:
        image, note = _shrunk(stored, max_side)
    orientation = stored.getexif().get(_ORIENTATION_TAG, 1)  # 1 for TIFF, which Pillow has turned by itself
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Photo(image, width, height, note)


def _shrunk(stored: Image.Image, max_side: int) -> tuple[Image.Image, str]:
    """sRGB with no side longer than `max_side`, and what a person should know of its colours.

    It is converted in strips, so that only the decoded original is large.
    """
    stored.load()
    white, ground = _white_level(stored), _ground(stored)
    to_srgb, note = _to_srgb(stored)
    factor = max(1, max(stored.size) // (2 * max_side))
    rows = factor * max(1, 256 // factor)
    result = Image.new("RGB", (-(-stored.width // factor), -(-stored.height // factor)))
    for top in range(0, stored.height, rows):
        strip = stored.crop((0, top, stored.width, min(top + rows, stored.height)))
        result.paste(_to_rgb(strip, white, ground, to_srgb).reduce(factor), (0, top // factor))
    result.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return result, note


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _ground(image: Image.Image) -> tuple[int, int, int]:
    """What an image is put on where it is transparent, so that a white garment is seen as well as a black one."""
    if not _is_transparent(image):
        return GROUNDS[0]
    side = (min(image.width, 128), min(image.height, 128))
    seen = np.asarray(image.resize(side, Image.Resampling.NEAREST).convert("RGBA"), np.float64)
    alpha = seen[..., 3]
    if not alpha.any():
        return GROUNDS[0]
    brightness = (seen[..., :3].mean(axis=-1) * alpha).sum() / alpha.sum()
    return GROUNDS[int(255 - brightness < LEAST_CONTRAST and alpha.min() < 255)]


def _to_srgb(image: Image.Image) -> tuple[Any, str]:
    """The transform from an image's ICC profile to sRGB, None where it needs none; and what is wrong with it."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in _PROFILED:
        return None, ""
    try:
        return _transform(bytes(profile), _PROFILED[image.mode]), ""
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        message = str(error).strip() or type(error).__name__
        return (
            None,
            f"its colour profile cannot be used ({message}), so that its colours may be wrong: export it as sRGB",
        )


_PROFILED = {"RGB": "RGB", "RGBA": "RGB", "RGBa": "RGB", "P": "RGB", "PA": "RGB", "CMYK": "CMYK", "L": "L", "LA": "L"}
"""Mode of an image → that of the colours which its profile is of."""


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """From a profile to sRGB, relative to white, as browsers do; None where the profile is sRGB itself."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in (ImageCms.getProfileDescription(source) or "").lower():
        return None
    wanted = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}[mode]
    if (space := source.profile.xcolor_space.strip()) != wanted:
        raise ValueError(f"it is of {space} colours, the photo of {wanted}")
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,  # threads share it
    )


def _white_level(image: Image.Image) -> float:
    """The value of white in greyscale images of more than 8 bits; integers that fit into 16 bits are taken as such."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return 255.0
    highest = float(image.getextrema()[1])  # type: ignore[arg-type]
    levels = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next((level for level in levels if highest <= level), highest)


def _to_rgb(image: Image.Image, white: float, ground: tuple[int, int, int], to_srgb: Any) -> Image.Image:
    if image.mode[0] in "IF":
        grey = np.asarray(image, np.float32) * (255.0 / white)
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if _is_transparent(image):
        layer = image.convert("RGBA")
        shown = _coloured(image.getchannel(0) if image.mode in ("L", "LA") else layer.convert("RGB"), to_srgb)
        shown.putalpha(layer.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", layer.size, ground), shown).convert("RGB")
    return _coloured(image.convert("RGB") if image.mode in ("P", "PA") else image, to_srgb)


def _coloured(image: Image.Image, to_srgb: Any) -> Image.Image:
    """An image of the mode that a transform takes → RGB."""
    return image.convert("RGB") if to_srgb is None else ImageCms.applyTransform(image, to_srgb) or image


def _idx_item(location: str) -> tuple[Path, int] | None:
    match = _IDX_ITEM.fullmatch(location)
    return (Path(match["file"]), int(match["item"])) if match else None


def _idx_pixels(path: Path, item: int) -> NDArray[np.uint8]:
    try:
        images = read_idx(path)
    except IdxError as error:
        raise PhotoError(str(error)) from error
    if images.ndim != 3 or item >= len(images):
        raise PhotoError(f"no item {item} in {path.name}, whose shape is {images.shape}: read the catalog again")
    pixels: NDArray[np.uint8] = images[item]
    return pixels


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """(28, 28) bright garment on black → (64, 64) RGB, the garment dark on white."""
    image = ImageOps.invert(Image.fromarray(pixels))
    return image.resize((_IDX_SIDE, _IDX_SIDE), Image.Resampling.LANCZOS).convert("RGB")


def padded(image: Image.Image) -> Image.Image:
    """An RGB image as a square, its shorter side continued in the median colour of its outermost pixels."""
    if image.width == image.height:
        return image
    pixels = np.asarray(image)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = tuple(int(value) for value in np.median(edges, axis=0))
    side = max(image.size)
    return ImageOps.pad(image, (side, side), color=colour)
