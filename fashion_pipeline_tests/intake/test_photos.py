"""Photos as people have them: each kind is shown as its owner sees it, each broken one is refused with a way out."""

import gzip
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from fashion_pipeline.intake.photos import (
    GROUNDS,
    PhotoError,
    content_id,
    decode_photo,
    file_of,
    open_photo,
    read_bytes,
    require_content,
)
from fashion_pipeline_tests.intake.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    Space,
    cmyk_profile,
    encoded,
    rgb_profile,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(path: Path, image: Image.Image, **options: object) -> str:
    image.save(path, **options)
    return str(path)


def close(pixel: object, expected: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(np.array(pixel, int) - expected).max() <= tolerance)


def declared_png(width: int, height: int) -> bytes:
    """A tiny file that says it is a huge greyscale image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def refusal(location: Path | str) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(str(location))
    return str(caught.value)


def test_a_phone_photo_taken_on_its_side_stands_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (80, 40), WHITE)
    image.paste(RED, (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    location = saved(tmp_path / "a.jpg", image, exif=exif, quality=95)
    photo = decode_photo(location, read_bytes(location))
    assert (photo.width, photo.height) == photo.image.size == (40, 80)
    assert close(photo.image.getpixel((20, 10)), RED)
    assert close(photo.image.getpixel((20, 70)), WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white_and_not_black(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 20, 40))
    photo = open_photo(saved(tmp_path / "a.png", image.convert(mode)))
    assert photo.mode == "RGB"
    assert close(photo.getpixel((5, 20)), (0, 0, 0)) and close(photo.getpixel((35, 20)), WHITE)


def test_a_print_shop_jpeg_in_cmyk_keeps_its_colour(tmp_path: Path) -> None:
    location = saved(tmp_path / "a.jpg", Image.new("CMYK", (40, 40), (0, 255, 255, 0)), quality=95)
    assert close(open_photo(location).getpixel((20, 20)), RED, 20)


def test_a_16_bit_greyscale_photo_is_not_blown_out(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))
    photo = open_photo(saved(tmp_path / "a.png", Image.fromarray(ramp)))
    assert [photo.getpixel((x, 16)) for x in (0, 63)] == [(0, 0, 0), WHITE]
    assert close(photo.getpixel((32, 16)), (130, 130, 130), 3)


def test_greyscale_palette_and_bilevel_photos_open(tmp_path: Path) -> None:
    for mode in ("L", "P", "1"):
        assert open_photo(saved(tmp_path / f"{mode}.png", Image.new(mode, (20, 30), 0))).getpixel((9, 9)) == (0, 0, 0)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        location = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=100)
        assert close(open_photo(location).getpixel((16, 16)), RED)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_large_photo_is_reduced_but_its_own_size_is_reported(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (4000, 1500), WHITE)
    image.paste(RED, (0, 0, 2000, 1500))
    location = saved(tmp_path / name, image)
    photo = decode_photo(location, read_bytes(location), max_side=256)
    assert photo.image.size == (256, 96) and (photo.width, photo.height) == (4000, 1500)
    assert close(photo.image.getpixel((60, 90)), RED) and close(photo.image.getpixel((200, 5)), WHITE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_that_declares_900_megapixels_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    for side in (30_000, 13_000):
        (tmp_path / "a.png").write_bytes(declared_png(side, side))
        assert re.search("too many pixels .*export it smaller", refusal(tmp_path / "a.png"))


def test_a_photo_of_100_megapixels_opens_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    location = saved(tmp_path / "a.png", Image.new("1", (11_000, 9_100), 1))
    assert open_photo(location, 64).size == (64, 53)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_a_photo_cut_off_in_copying_is_refused_not_shown_half_grey(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    path = tmp_path / f"a.{kind}"
    saved(path, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reason = refusal(path)
    assert "again" in reason or "replace" in reason
    assert kind not in ("jpg", "png") or "cut off" in reason


def test_the_reason_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    files = {"text.jpg": (b"hello", "not an image"), "empty.jpg": (b"", "0 bytes")}
    files["phone.jpg"] = (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC.*JPEG")
    for name, (data, expected) in files.items():
        (tmp_path / name).write_bytes(data)
        assert re.search(expected, refusal(tmp_path / name))
    assert "cannot be read" in refusal(tmp_path / "missing.jpg")
    assert "no regular file" in refusal(tmp_path)
    assert "only 1 x 1 pixels" in refusal(saved(tmp_path / "dot.png", Image.new("L", (1, 1))))


def test_a_script_that_poses_as_a_photo_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n")
    assert "not an image" in refusal(tmp_path / "a.jpg")


def idx_file(path: Path, images: np.ndarray) -> Path:
    data = b"\0\0\x08\x03" + struct.pack(">III", *images.shape) + images.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"])
def test_an_item_of_fashion_mnist_is_dark_on_white_at_64_pixels(tmp_path: Path, name: str) -> None:
    images = np.zeros((3, 28, 28), np.uint8)
    images[2, 10:18, 10:18] = 255
    location = f"{idx_file(tmp_path / name, images)}#2"
    photo = open_photo(location)
    assert photo.size == (64, 64) and photo.mode == "RGB"
    assert photo.getpixel((2, 2)) == WHITE and photo.getpixel((32, 32)) == (0, 0, 0)
    assert read_bytes(location) == images[2].tobytes() and file_of(location) == tmp_path / name
    assert "no item 3" in refusal(f"{tmp_path / name}#3")


def test_a_replaced_or_broken_idx_file_is_noticed(tmp_path: Path) -> None:
    path = idx_file(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((1, 28, 28), np.uint8))
    assert max(read_bytes(f"{path}#0")) == 0
    idx_file(path, np.full((1, 28, 28), 7, np.uint8))
    assert max(read_bytes(f"{path}#0")) == 7
    path.write_bytes(path.read_bytes()[:-12])
    assert "download it again" in refusal(f"{path}#0")


def test_a_photo_keeps_its_identity_when_it_is_renamed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    for name in ("a.png", "b#1.png"):
        (tmp_path / name).write_bytes(buffer.getvalue())
    first, second = (content_id(read_bytes(str(tmp_path / name))) for name in ("a.png", "b#1.png"))
    assert first == second and re.fullmatch("[0-9a-f]{16}", first)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "avif"])
def test_every_orientation_in_every_kind_that_can_carry_one_stands_upright(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    colours = np.array([[[255, 0, 0], [0, 160, 0]], [[0, 0, 255], [230, 230, 0]]], np.uint8)
    stored = Image.fromarray(colours.repeat(32, 0).repeat(24, 1))  # 48 x 64
    exif = Image.Exif()
    exif[0x0112] = orientation
    location = saved(tmp_path / f"a.{kind}", stored, exif=exif, quality=95)
    expected = stored.copy()
    expected.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(expected)
    photo = decode_photo(location, read_bytes(location))
    assert photo.image.size == expected.size == (photo.width, photo.height)
    difference = np.abs(np.asarray(photo.image, int) - np.asarray(expected.convert("RGB"), int))
    assert np.median(difference) < 12 and (difference > 60).mean() < 0.05


CLARET = (175, 43, 62)


@pytest.mark.parametrize("space", [ADOBE_RGB, DISPLAY_P3, PROPHOTO], ids=["adobe", "p3", "prophoto"])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_colours_are_converted_by_the_profile_of_the_photo(tmp_path: Path, space: Space, kind: str) -> None:
    stored = encoded(CLARET, space)
    assert not close(stored, CLARET, 8), "read as sRGB it would be another colour"
    image = Image.new("RGB", (40, 40), stored)
    options: dict[str, object] = {"lossless": True} if kind == "webp" else {"quality": 98}
    location = saved(tmp_path / f"a.{kind}", image, icc_profile=rgb_profile(space), **options)
    photo = decode_photo(location, read_bytes(location))
    assert close(photo.image.getpixel((20, 20)), CLARET, 4) and photo.note == ""


def test_a_profile_also_counts_where_a_photo_is_transparent_has_a_palette_or_is_large(tmp_path: Path) -> None:
    profile, stored = rgb_profile(ADOBE_RGB), encoded(CLARET, ADOBE_RGB)
    cut_out = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    cut_out.paste((*stored, 255), (0, 0, 20, 40))
    seen = open_photo(saved(tmp_path / "a.png", cut_out, icc_profile=profile))
    assert close(seen.getpixel((5, 20)), CLARET, 4) and seen.getpixel((35, 20)) == WHITE
    palette = Image.new("RGB", (40, 40), stored).quantize(4)
    assert close(open_photo(saved(tmp_path / "p.png", palette, icc_profile=profile)).getpixel((5, 5)), CLARET, 5)
    large = Image.new("RGB", (3000, 2200), stored)
    assert close(open_photo(saved(tmp_path / "l.png", large, icc_profile=profile), 64).getpixel((5, 5)), CLARET, 4)


def test_a_print_shops_profile_decides_what_its_inks_look_like(tmp_path: Path) -> None:
    magenta = Image.new("CMYK", (40, 40), (0, 255, 0, 0))
    plain = open_photo(saved(tmp_path / "plain.tif", magenta)).getpixel((20, 20))
    profiled = open_photo(saved(tmp_path / "a.tif", magenta, icc_profile=cmyk_profile())).getpixel((20, 20))
    by_hand = ImageCms.profileToProfile(
        magenta, ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile())), ImageCms.createProfile("sRGB"), 1, "RGB"
    )
    assert close(profiled, by_hand.getpixel((20, 20)), 12) and not close(profiled, plain, 30)


def test_srgb_is_left_as_it_is_and_a_damaged_profile_is_told_and_not_fatal(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    own = saved(tmp_path / "own.png", noise, icc_profile=rgb_profile(SRGB, "sRGB IEC61966-2.1"))
    assert np.array_equal(open_photo(own), noise)
    for name, profile in {"broken": b"no profile at all" * 9, "other": cmyk_profile()}.items():
        location = saved(tmp_path / f"{name}.png", noise, icc_profile=profile)
        photo = decode_photo(location, read_bytes(location))
        assert np.array_equal(photo.image, noise)
        assert "its colour profile cannot be used" in photo.note and "export it as sRGB" in photo.note


@pytest.mark.parametrize("colour", ["white", (245, 240, 235), "black", (128, 30, 40)])
@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
def test_a_cut_out_garment_is_put_on_a_ground_that_shows_it(tmp_path: Path, kind: str, colour: object) -> None:
    image = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    image.paste(Image.new("RGBA", (30, 40), colour), (15, 10))  # type: ignore[arg-type]
    options: dict[str, object] = {"lossless": True} if kind == "webp" else {}
    if kind == "gif":
        frames = [image, Image.new("RGBA", (60, 60), "blue")]
        location = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:], disposal=2)
    else:
        location = saved(tmp_path / f"a.{kind}", image, **options)
    photo = open_photo(location)
    require_content(photo)
    garment, ground = np.array(photo.getpixel((30, 30)), int), np.array(photo.getpixel((2, 2)), int)
    assert np.abs(garment - ground).max() > 60
    dark = colour in ("black", (128, 30, 40))
    assert tuple(ground) == GROUNDS[0 if dark else 1]


def test_a_png_with_a_large_text_is_read(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * (5 << 20), zip=True)
    texts.add_itxt("prompt", "y" * (5 << 20), zip=True)
    location = saved(tmp_path / "a.png", image, pnginfo=texts)
    assert np.array_equal(open_photo(location), image)
    for cut in (30, 60, 200):  # in the middle of a chunk
        (tmp_path / "b.png").write_bytes(Path(location).read_bytes()[:-cut])
        assert "again" in refusal(tmp_path / "b.png")


def test_a_strip_is_not_decoded_to_a_line(tmp_path: Path) -> None:
    strip = Image.new("RGB", (20, 4000), WHITE)
    strip.paste(RED, (0, 0, 20, 2000))
    for kind in ("jpg", "png"):
        small = open_photo(saved(tmp_path / f"a.{kind}", strip), 128)
        assert min(small.size) >= 16 and small.height / small.width == pytest.approx(200, rel=0.02)
    assert "a strip of 16 x 5000 pixels: crop it" in refusal(saved(tmp_path / "b.png", Image.new("L", (16, 5000))))
