"""Broken and hostile images: none takes the run down, each is refused with a reason, within limits."""

import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.intake import decoder, decoding
from fashion_pipeline.intake.decoding import AT_ONCE, Decoders, Inspected
from fashion_pipeline.intake.photos import PhotoError
from fashion_pipeline_tests.conftest import SAMPLES

MUTATIONS = 1000
TWO_GB = 2 << 20
"""In the kilobytes of /proc."""


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    found = Decoders()
    yield found
    found.close()


def looked_at(decoders: Decoders, files: list[Path]) -> dict[Path, Inspected | str]:
    """File → what the catalog would know of it, or why it is refused."""

    def look(file: Path) -> Inspected | str:
        try:
            return decoders.inspect(str(file))
        except PhotoError as error:
            return str(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(files, pool.map(look, files), strict=True))


def assert_bounded(decoders: Decoders) -> None:
    """No decoder that still lives ever held more than two gigabytes; the others died for want of memory."""
    living = [process for process in list(decoders._idle.queue) if process is not None and process.poll() is None]
    peaks = [Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0] for process in living]
    assert peaks and all(int(peak) < TWO_GB for peak in peaks), peaks


def mutated(good: bytes, chosen: random.Random) -> bytes:
    """A file with bytes turned, cut, repeated, swapped, or with a length or size that it does not have."""
    data = bytearray(good)
    for _ in range(chosen.randint(1, 4)):
        at = chosen.randrange(len(data))
        kind = chosen.randrange(6)
        if kind == 0:
            data[at] ^= 1 << chosen.randrange(8)
        elif kind == 1:
            data = data[: max(at, 1)]
        elif kind == 2:
            data[at:at] = data[at : at + chosen.randrange(1, 200)]
        elif kind == 3:
            data[at : at + 4] = chosen.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
        elif kind == 4:
            data[at : at + 64] = chosen.randbytes(64)
        else:  # near the start, where sizes and counts stand
            data[chosen.randrange(min(64, len(data)))] = chosen.randrange(256)
    return bytes(data)


def test_a_thousand_mutations_of_good_images_are_read_or_refused(tmp_path: Path, decoders: Decoders) -> None:
    chosen, goods = random.Random(0), []
    photo = Image.open(next((SAMPLES / "coat").glob("*.png"))).convert("RGB").resize((96, 96))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"):
        stream = io.BytesIO()
        photo.save(stream, kind)
        goods.append((kind, stream.getvalue()))
    files = []
    for number in range(MUTATIONS):
        kind, good = goods[number % len(goods)]
        files.append(tmp_path / f"{number}.{kind.lower()}")
        files[-1].write_bytes(mutated(good, chosen))
    found = looked_at(decoders, files)
    refused = [reason for reason in found.values() if isinstance(reason, str)]
    assert MUTATIONS // 10 < len(refused) < MUTATIONS and all(refused)
    assert_bounded(decoders)


def broken_images(tmp_path: Path) -> list[Path]:
    """Pillow's own test images, as its source brings them, or the files below $FASHION_BROKEN_IMAGES."""
    if given := os.environ.get("FASHION_BROKEN_IMAGES"):
        return sorted(path for path in Path(given).rglob("*") if path.is_file())
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=pillow", "--quiet", "-d", str(tmp_path)]
    try:
        subprocess.run([*asked, f"pillow=={version('pillow')}"], check=True, timeout=120, capture_output=True)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("Pillow's source cannot be had here")
    (archive,) = tmp_path.glob("pillow-*.tar.gz")
    files = []
    with tarfile.open(archive) as source:
        for number, member in enumerate(source.getmembers()):
            if "/Tests/images/" in member.name and (stream := source.extractfile(member)) is not None:
                files.append(tmp_path / f"{number}-{Path(member.name).name}")
                files[-1].write_bytes(stream.read())
    return files


def test_the_images_that_pillow_tests_itself_with_are_read_or_refused(tmp_path: Path, decoders: Decoders) -> None:
    files = broken_images(tmp_path)
    found = looked_at(decoders, files)
    read = [file for file, each in found.items() if isinstance(each, Inspected)]
    assert len(files) > 100 and read and len(read) < len(files)
    for file, each in found.items():
        assert isinstance(each, Inspected) or len(each) > 20, file
    assert_bounded(decoders)


# Decoders that die


def test_a_file_that_makes_the_decoder_crash_is_refused_and_the_next_one_read(
    tmp_path: Path, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = next((SAMPLES / "coat").glob("*.png"))
    crashing = [sys.executable, "-c", "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)"]
    with monkeypatch.context() as planted:
        planted.setattr(decoding, "_COMMAND", crashing)
        with pytest.raises(PhotoError, match=r"makes the decoder crash \(exit code -11\): export it as JPEG"):
            decoders.inspect(str(good))
    assert decoders.inspect(str(good)).width == Image.open(good).width


def test_a_file_that_makes_the_decoder_go_home_is_refused_in_the_end(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_COMMAND", [sys.executable, "-c", "import sys; sys.stdin.readline()"])
    with pytest.raises(PhotoError, match=r"makes the decoder crash \(exit code 0\)"):
        decoders.inspect("a.png")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs the environment of another process")
def test_a_decoder_knows_no_secret(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_DATABASE", "sesame")
    decoders.inspect(str(next((SAMPLES / "coat").glob("*.png"))))
    process = decoders._idle.get()
    assert process is not None and b"sesame" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    decoders._idle.put(process)


def test_a_file_that_keeps_the_decoder_busy_is_refused(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = "import resource, sys; sys.stdin.readline(); resource.setrlimit(resource.RLIMIT_CPU, (1, 2))"
    monkeypatch.setattr(decoding, "_COMMAND", [sys.executable, "-c", f"{limited}\nwhile True: pass"])
    with pytest.raises(PhotoError, match="takes more time or memory than 60 seconds"):
        decoders.inspect("a.png")


def test_a_decoder_that_says_nothing_is_not_waited_for_for_ever(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(decoding, "PATIENCE", 0.2)
    with pytest.raises(PhotoError, match="takes more time or memory"):
        decoders.inspect("a.png")


def test_a_file_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swell(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoder, "decode_photo", swell)
    good = next((SAMPLES / "coat").glob("*.png"))
    assert decoder.answer(str(good), False)["fault"].startswith("decoding it takes more memory than 1600 MiB")


def test_the_limits_hold_in_the_process_that_decodes(tmp_path: Path) -> None:
    code = (
        "import resource, numpy as np\n"
        "from fashion_pipeline.intake import decoder\n"
        "decoder._limit(resource.RLIMIT_DATA, decoder.MEMORY)\n"
        "np.zeros(decoder.MEMORY // 2, np.uint8)\n"
        "try:\n    np.zeros(decoder.MEMORY, np.uint8)\nexcept MemoryError:\n    print('refused')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "refused"


def test_a_decoder_that_nobody_needs_ends_and_another_takes_its_place(decoders: Decoders) -> None:
    good = next((SAMPLES / "coat").glob("*.png"))
    decoders.inspect(str(good))
    process = decoders._idle.get()
    assert process is not None and process.stdin is not None
    process.stdin.close()  # as when nobody asks any more
    assert process.wait(30) == 0
    decoders._idle.put(process)
    assert decoders.inspect(str(good)).id


def test_large_images_are_decoded_one_at_a_time_and_within_the_limit(
    tmp_path: Path, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((6_000, 8_000), np.uint8)
    pixels[::7] = 200
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "colours.png", compress_level=1)
    Image.fromarray(pixels.astype(np.int32) * 250).save(tmp_path / "deep.tiff")
    large: list[int] = []
    inside = decoding._answer

    def answer(process, request):
        large.append(request["large"])
        assert not request["large"] or decoders._one_large_at_a_time.locked()
        return inside(process, request)

    monkeypatch.setattr(decoding, "_answer", answer)
    found = looked_at(decoders, sorted(tmp_path.iterdir()))
    assert all(isinstance(each, Inspected) and each.width == 8_000 for each in found.values())
    assert large.count(True) == 2
    assert_bounded(decoders)
