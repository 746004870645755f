"""Files that stand in the way: each is named with a way out, and the rest of the style goes on."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.catalog.listing import CatalogError, Listing, SourceSpec
from fashion_pipeline.core.features.attributes import VocabularyError, read_vocabulary
from fashion_pipeline.core.weights import is_whole
from fashion_pipeline.intake.assembling import build_catalog
from fashion_pipeline.intake.photos import PhotoError, read_bytes
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline_tests.intake.planting import NOTHING_KNOWN


@pytest.fixture
def coats(tmp_path: Path) -> Path:
    """A source with ten photos of noise that are all different."""
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(10):
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "coat" / f"{index}.png")
    return tmp_path / "photos"


def rejects(source: Path) -> tuple[int, dict[str, str]]:
    """Photos taken, and for each other file why it was not."""
    listing: Listing = read_source(SourceSpec(str(source)))
    part = listing.of("coat")
    made = build_catalog("coat", part.entries, NOTHING_KNOWN, rejects=part.rejects, base=str(source))
    return made.images.num_rows, {Path(r["path"]).name: r["reason"] for r in made.rejects.to_pylist()}


def test_a_name_that_is_not_utf8_costs_that_photo_alone(coats: Path) -> None:
    whole = (coats / "coat" / "0.png").read_bytes()
    (coats / "coat" / "0.png").rename(os.fsdecode(os.fsencode(coats / "coat") + b"/caf\xe9.png"))
    folder = Path(os.fsdecode(os.fsencode(coats / "coat") + b"/\xff"))
    folder.mkdir()
    (folder / "a.png").write_bytes(whole)
    assert rejects(coats) == (9, dict.fromkeys(("caf?.png", "?"), "its name is not UTF-8: rename it"))


def transparent() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 4), np.uint8)
    pixels[:, :, 3] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGB", (32, 32), "white"), "PNG"),
        (Image.new("RGB", (32, 32), (90, 91, 90)), "JPEG"),
        (transparent(), "PNG"),
    ],
    ids=["white", "grey", "transparent"],
)
def test_a_photo_that_shows_nothing_is_refused(coats: Path, image: Image.Image, kind: str) -> None:
    image.save(coats / "coat" / "blank.img", kind)
    (coats / "coat" / "blank.img").rename(coats / "coat" / "blank.png")
    taken, refused = rejects(coats)
    assert taken == 10 and refused["blank.png"].startswith("it shows nothing, being one colour all over")


def test_a_pipe_is_refused_and_not_waited_for(coats: Path) -> None:
    os.mkfifo(coats / "coat" / "pipe.jpg")
    taken, refused = rejects(coats)
    assert taken == 10 and refused == {
        "pipe.jpg": "no regular file but a folder, pipe or device: put a photo there, or remove it"
    }
    with pytest.raises(PhotoError, match="no regular file"):
        read_bytes(str(coats))


def test_a_style_that_is_refused_names_its_rejects(coats: Path) -> None:
    for index in range(3, 10):
        (coats / "coat" / f"{index}.png").write_bytes(b"")
    with pytest.raises(CatalogError, match="has 3 usable photos") as error:
        rejects(coats)
    assert all(f"{index}.png: the file is empty" in str(error.value) for index in range(3, 10))


def test_an_empty_manifest_is_mended_by_rows_not_by_a_folder_in_it(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("style,path\n")
    with pytest.raises(CatalogError, match=r"no photos in .*photos\.csv: add rows$"):
        read_source(SourceSpec(str(tmp_path / "photos.csv")))


def test_templates_of_a_facet_that_is_not_there_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "v.toml"
    file.write_text('[colour]\nred = ["red"]\nblue = ["blue"]\n[templates]\ncolourz = ["a {} thing"]\n')
    with pytest.raises(VocabularyError, match=r"\[templates\] 'colourz' is no facet of this file \(colour\)"):
        read_vocabulary(file)


def test_weights_that_were_cut_off_or_are_none_are_not_whole(tmp_path: Path) -> None:
    whole = PACKAGE / "embedded" / "judge" / "model.safetensors"
    assert is_whole(whole)
    data = whole.read_bytes()
    for content in (data[:-1], data[:100], b"", b"<html>not found</html>", data + b"x"):
        (tmp_path / "w.safetensors").write_bytes(content)
        assert not is_whole(tmp_path / "w.safetensors")
    assert not is_whole(tmp_path / "gone")
