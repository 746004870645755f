"""From a source of photos to a style's catalog: what is taken, what is refused and why, and what stays as it was."""

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fashion_pipeline.core.catalog import assembling as catalog_module
from fashion_pipeline.core.catalog.assembling import Catalog, build_catalog, torn_near_duplicates
from fashion_pipeline.core.catalog.listing import (
    PRODUCT_PHOTOS,
    CatalogError,
    ColumnMapping,
    Entry,
    Listing,
    SourceSpec,
    listing_state,
    style_slug,
)
from fashion_pipeline.core.catalog.sources import FASHION_MNIST, read_source
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.core.tables import rows_to_table, schema

NOTHING_KNOWN = schema("images").append(pa.field("style", pa.string())).empty_table()
HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage"


def photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def save_photos(folder: Path, seeds: range, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        photo(seed).save(folder / f"{seed:02}.{suffix}")


def listed(root: Path, **options: object) -> Listing:
    return read_source(SourceSpec(str(root), **options))  # type: ignore[arg-type]


def built(root: Path, style: str, known: pa.Table = NOTHING_KNOWN) -> Catalog:
    part = listed(root).of(style)
    return build_catalog(style, part.entries, known, rejects=part.rejects, base=root)


def as_known(style: str, images: pa.Table) -> pa.Table:
    return images.append_column(NOTHING_KNOWN.schema.field("style"), pa.array([style] * len(images)))


def reasons(listing: Listing) -> dict[str, str]:
    return {Path(reject.path).name: reject.reason for reject in listing.rejects}


def key_in(split: str) -> str:
    return next(str(number) for number in range(1000) if split_of(str(number)) == split)


def product_row(key: str, usage: str = "Ethnic", colour: str = "Navy Blue") -> str:
    return f"{key},Women,Apparel,Topwear,Kurtas,{colour},Fall,2011,{usage}"


@pytest.fixture
def products(tmp_path: Path) -> Callable[[list[str]], Path]:
    """Write styles.csv with the given rows and a photo for each of the ids 0 to 11."""

    def write(rows: list[str]) -> Path:
        save_photos(tmp_path / "images", range(12), "jpg")
        for path in (tmp_path / "images").iterdir():
            path.rename(path.with_name(f"{int(path.stem)}.jpg"))
        (tmp_path / "styles.csv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
        return tmp_path

    return write


# Names of styles


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Smart Casual", "smart-casual"),
        ("T-shirt", "t-shirt"),
        ("men's_wear", "mens-wear"),
        ("旗袍", "旗袍"),
        ("कुर्ता", "कुर्ता"),
    ],
)
def test_a_style_keeps_a_readable_name(name: str, slug: str) -> None:
    assert style_slug(name) == slug


@pytest.mark.parametrize(
    "name", ["", " ", "NA", "nan", "../x", "a/b", "a\\b", "..", "***", "a\nb", "a\u202eb", "x" * 61]
)
def test_a_style_name_that_would_break_folders_or_partitions_is_refused_with_a_mend(name: str) -> None:
    with pytest.raises(CatalogError, match=r"rename|give|shorten"):
        style_slug(name)


# Folders


def test_each_folder_is_a_style_with_its_photos_captions_and_what_was_not_taken(tmp_path: Path) -> None:
    save_photos(tmp_path / "Smart Casual" / "2024", range(2))
    save_photos(tmp_path / "coat", range(2, 3), "JPG")
    (tmp_path / "coat" / "02.txt").write_text("a long \n red coat\n")
    for name in ("notes.txt", "list.pdf", "photo.heic", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / "coat" / name).write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("x")
    save_photos(tmp_path, range(9, 10))
    listing = listed(tmp_path)
    assert listing.styles() == ["coat", "smart-casual"]
    coat, *casual = listing.entries[-1:] + listing.entries[:-1]
    assert (coat.caption, coat.wording, coat.key) == ("a long red coat", "coat", "")
    assert [entry.style_name for entry in casual] == ["Smart Casual"] * 2
    assert set(reasons(listing)) == {"notes.txt", "list.pdf", "photo.heic", "09.png"}
    assert "export it as JPEG" in reasons(listing)["photo.heic"]


def test_a_badly_named_style_folder_does_not_stop_the_others(tmp_path: Path) -> None:
    save_photos(tmp_path / "NA", range(1))
    save_photos(tmp_path / "coat", range(1))
    listing = listed(tmp_path)
    assert listing.styles() == ["coat"] and "give the style a name" in reasons(listing)["NA"]


def test_a_source_without_photos_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"there is no .*name a folder"):
        listed(tmp_path / "missing")
    with pytest.raises(CatalogError, match=r"no photos in .*<style>/"):
        listed(tmp_path)
    (tmp_path / "coat").mkdir()
    (tmp_path / "coat" / "a.md").write_text("x")
    with pytest.raises(CatalogError, match=r"1 rejected, first .*a.md: .md is no image.*<style>/"):
        listed(tmp_path)


# Manifests


def test_the_public_product_photos_are_read_as_they_are(products: Callable[[list[str]], Path]) -> None:
    root = products([product_row("1"), product_row("2", colour="NA"), product_row("3", "Smart Casual")])
    listing = listed(root)
    assert listing.styles() == ["ethnic", "smart-casual"] and not listing.rejects
    first, second, _ = listing.entries
    assert (first.key, first.location, first.wording) == ("1", str(root / "images" / "1.jpg"), "ethnic wear")
    assert first.attributes == {
        "garment": "Kurtas", "colour": "Navy Blue", "audience": "Women", "season": "Fall", "usage": "Ethnic",
    }  # fmt: skip
    assert "colour" not in second.attributes


def test_bad_rows_are_listed_by_line_and_the_rest_is_taken(products: Callable[[list[str]], Path]) -> None:
    root = products(
        [
            product_row("1"),
            product_row("2", "NA"),
            product_row("../../etc/passwd"),
            product_row("99"),
            product_row("3") + ",extra, commas",
            product_row("4", "../x"),
            product_row(""),
        ]
    )
    listing = listed(root)
    assert [entry.key for entry in listing.entries] == ["1"]
    found = reasons(listing)
    assert list(found) == [f"styles.csv:{line}" for line in range(3, 9)]
    expected = ["no value", "lies outside", "no file", "11 fields", "slash", "no value in column 'id'"]
    assert all(text in reason for text, reason in zip(expected, found.values(), strict=True))


def test_a_link_out_of_the_folder_is_not_followed(
    products: Callable[[list[str]], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = products([product_row("1"), product_row("77"), product_row("78")])
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jpg"
    photo(5).save(secret)
    (root / "images" / "77.jpg").symlink_to(secret)
    (root / "images" / "78.jpg").symlink_to(root / "images" / "78.jpg")
    listing = listed(root)
    assert [entry.key for entry in listing.entries] == ["1"]
    assert "lies outside" in reasons(listing)["styles.csv:3"] and "styles.csv:4" in reasons(listing)


def test_an_absolute_path_in_a_manifest_is_refused(tmp_path: Path) -> None:
    save_photos(tmp_path, range(1))
    (tmp_path / "m.csv").write_text(f"style,path\ncoat,{tmp_path}/00.png\ncoat,00.png\n")
    listing = listed(tmp_path)
    assert len(listing.entries) == 1 and "lies outside" in reasons(listing)["m.csv:2"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_manifest_saved_by_a_spreadsheet_is_read(tmp_path: Path, separator: str) -> None:
    save_photos(tmp_path, range(1))
    rows = [["style", "path", "caption", "colour"], ["Robe d'été", "00.png", '"a ""summer"" dress"', "red"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / "m.csv").write_bytes(text.encode("utf-8-sig"))
    entry = listed(tmp_path / "m.csv").entries[0]
    assert (entry.style, entry.caption, entry.attributes) == ("robe-dété", 'a "summer" dress', {"colour": "red"})


def test_a_parquet_manifest_with_its_own_column_names_is_read(tmp_path: Path) -> None:
    save_photos(tmp_path / "shots", range(2))
    rows = {"line": ["Coat", "Coat"], "sku": [7.0, None], "file": ["00.png", "01.png"], "tone": ["red", None]}
    pq.write_table(pa.table(rows), tmp_path / "m.parquet")
    mapping = ColumnMapping(style="line", id="sku", path="shots/{file}", attributes={"colour": "tone"})
    entries = listed(tmp_path, columns=mapping, style_name="{style} look").entries
    assert [(e.key, e.wording, dict(e.attributes)) for e in entries] == [
        ("7", "coat look", {"colour": "red"}),
        ("", "coat look", {}),
    ]


def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    faults = {
        "id,articleType\n1,Kurtas\n": "no column 'baseColour', 'gender', 'season', 'usage'; it has id, art.*: add",
        "a,b\n1,2\n": "columns a, b: call those",
        "": "is empty: write",
        "style,path\na\0b,c\n": None,
    }
    for text, message in faults.items():
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(CatalogError, match=message):
            listed(tmp_path)
    (tmp_path / "m.csv").write_bytes("style,path\ncafé,a.jpg\n".encode("latin-1"))
    with pytest.raises(CatalogError, match=r"not UTF-8 .*save it as UTF-8"):
        listed(tmp_path)
    (tmp_path / "n.parquet").write_bytes(b"nonsense")
    with pytest.raises(CatalogError, match=r"2 manifests .*name the one"):
        listed(tmp_path)
    with pytest.raises(CatalogError, match="cannot be read as Parquet"):
        listed(tmp_path / "n.parquet")


def test_a_source_survives_being_stored_as_json() -> None:
    for spec in (SourceSpec("data/samples"), SourceSpec("/x", PRODUCT_PHOTOS, "{style} wear")):
        assert SourceSpec.from_json(spec.to_json()) == spec
    for text in ("[]", "{", json.dumps({"folder": "x"})):
        with pytest.raises(CatalogError, match="not a photo source"):
            SourceSpec.from_json(text)


# Fashion-MNIST


def save_idx(folder: Path, part: str, labels: list[int], suffix: str = ".gz") -> None:
    pixels = np.stack([np.asarray(photo(label).convert("L").resize((28, 28))) for label in range(len(labels))])
    images = b"\0\0\x08\x03" + struct.pack(">III", *pixels.shape) + pixels.tobytes()
    packed = (images, b"\0\0\x08\x01" + struct.pack(">I", len(labels)) + bytes(labels))
    for data, name in zip(packed, ("images-idx3", "labels-idx1"), strict=True):
        (folder / f"{part}-{name}-ubyte{suffix}").write_bytes(gzip.compress(data) if suffix else data)


def test_fashion_mnist_is_read_from_its_own_files(tmp_path: Path) -> None:
    save_idx(tmp_path, "train", [4] * 9 + [9])
    save_idx(tmp_path, "t10k", [4], suffix="")
    listing = listed(tmp_path)
    assert listing.styles() == ["ankle-boot", "coat"] and len(FASHION_MNIST) == 10
    images = build_catalog("coat", listing.of("coat").entries, NOTHING_KNOWN).images
    assert len(images) == 9 and set(images["width"].to_pylist()) == {64}
    save_idx(tmp_path, "t10k", [4, 12], suffix="")
    with pytest.raises(CatalogError, match="label 12"):
        listed(tmp_path)


# The catalog of a style


def test_every_usable_photo_is_in_the_catalog_and_every_other_has_a_reason(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(10))
    (tmp_path / "coat" / "copy.png").write_bytes((tmp_path / "coat" / "03.png").read_bytes())
    (tmp_path / "coat" / "text.jpg").write_text("hello")
    (tmp_path / "coat" / "list.pdf").write_text("x")
    result = built(tmp_path, "coat")
    assert len(result.images) == 10 and result.images.schema == schema("images")
    found = {Path(row["path"]).name: row["reason"] for row in result.rejects.to_pylist()}
    assert set(found) == {"copy.png", "text.jpg", "list.pdf"}
    assert f"same file as {tmp_path}/coat/03.png" in found["copy.png"] and "not an image" in found["text.jpg"]
    assert all(split_of(row["product_group"]) == row["split"] for row in result.images.to_pylist())


def test_a_style_with_three_photos_says_how_many_are_needed(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(3))
    (tmp_path / "coat" / "bad.jpg").write_text("hello")
    with pytest.raises(CatalogError) as caught:
        built(tmp_path, "coat")
    assert f"style 'coat' has 3 usable photos under {tmp_path}: at least 8 are needed" in str(caught.value)
    assert "1 rejected, first" in str(caught.value) and "bad.jpg: not an image" in str(caught.value)


def test_the_order_in_which_files_are_found_changes_nothing(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(12))
    entries = listed(tmp_path).entries
    progress: list[tuple[int, int]] = []
    first = build_catalog("coat", entries, NOTHING_KNOWN, progress=lambda *step: progress.append(step))
    assert first.images.equals(build_catalog("coat", entries[::-1], NOTHING_KNOWN).images)
    assert progress == [(done, 12) for done in range(1, 13)]


def test_a_second_run_decodes_nothing_and_takes_over_new_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(tmp_path / "coat", range(9))
    first = built(tmp_path, "coat").images
    (tmp_path / "coat" / "00.txt").write_text("a red coat")
    (tmp_path / "coat" / "01.png").rename(tmp_path / "coat" / "moved.png")
    monkeypatch.setattr(catalog_module, "decode_photo", None)
    second = built(tmp_path, "coat", as_known("coat", first)).images
    assert (
        second.drop_columns(["path", "caption"])
        .sort_by("id")
        .equals(first.drop_columns(["path", "caption"]).sort_by("id"))
    )
    named = {Path(row["path"]).name: row["caption"] for row in second.to_pylist()}
    assert named["00.png"] == "a red coat" and "moved.png" in named


def test_new_photos_leave_the_others_where_they_were_and_deleted_ones_go(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(5, 20))
    first = built(tmp_path, "coat").images
    save_photos(tmp_path / "coat", range(30))
    (tmp_path / "coat" / "07.png").unlink()
    second = built(tmp_path, "coat", as_known("coat", first)).images
    splits = {row["id"]: (row["product_group"], row["split"]) for row in second.to_pylist()}
    kept = {row["id"]: (row["product_group"], row["split"]) for row in first.to_pylist() if "07.png" not in row["path"]}
    assert len(splits) == 29 and kept.items() <= splits.items()


def test_a_recompressed_photo_joins_its_original_also_in_another_style(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(9))
    save_photos(tmp_path / "dress", range(20, 29))
    first = built(tmp_path, "coat").images
    photo(0).save(tmp_path / "dress" / "copy.jpg", quality=85)
    second = built(tmp_path, "dress", as_known("coat", first)).images.to_pylist()
    original = next(row for row in first.to_pylist() if row["path"].endswith("00.png"))
    copy = next(row for row in second if row["path"].endswith("copy.jpg"))
    assert (copy["product_group"], copy["split"]) == (original["product_group"], original["split"])


def test_the_catalog_says_where_a_photo_lies_below_its_source(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(9))
    paths = built(tmp_path, "coat").images["path"].to_pylist()
    assert sorted(paths) == [f"coat/{seed:02}.png" for seed in range(9)]


def test_photos_that_look_the_same_in_two_splits_are_seen_by_their_fingerprints(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(12))
    images = built(tmp_path, "coat").images
    assert torn_near_duplicates(images) == []
    rows = images.to_pylist()
    other = next(row for row in rows if row["split"] != rows[0]["split"])
    other |= {name: rows[0][name] for name in ("perceptual_hash", "thumbnail")}
    assert torn_near_duplicates(rows_to_table("images", rows)) == [(rows[0]["id"], other["id"])]


def test_a_copy_still_joins_its_group_when_the_photo_that_founded_it_is_gone(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(9))
    known = as_known("coat", built(tmp_path, "coat").images)
    position = next(n for n, path in enumerate(known["path"].to_pylist()) if path.endswith("00.png"))
    groups = known["product_group"].to_pylist()
    groups[position] = "gone"
    known = known.set_column(
        known.schema.get_field_index("product_group"), known.schema.field("product_group"), [groups]
    )
    photo(0).save(tmp_path / "coat" / "copy.jpg", quality=85)
    rows = built(tmp_path, "coat", known).images.to_pylist()
    assert next(row for row in rows if row["path"].endswith("copy.jpg"))["product_group"] == "gone"


def entries_of(folder: Path, keys: dict[str, str]) -> list[Entry]:
    return [Entry("coat", "coat", "coat", key, str(folder / name)) for name, key in keys.items()]


def test_a_photo_between_two_splits_is_refused_naming_both(tmp_path: Path) -> None:
    save_photos(tmp_path, range(9))
    keys = {f"{seed:02}.png": f"p{seed}" for seed in range(9)}
    known = as_known("coat", build_catalog("coat", entries_of(tmp_path, keys), NOTHING_KNOWN).images)
    search, test = key_in("search"), key_in("test")
    row = known.slice(0, 1).to_pylist()[0]
    planted = [
        {**row, "id": key, "product": key, "product_group": key, "split": split_of(key)} for key in (search, test)
    ]
    known = pa.concat_tables([known.slice(1), pa.Table.from_pylist(planted, schema=known.schema)])
    result = build_catalog("coat", entries_of(tmp_path, keys), known)
    [reject] = result.rejects.to_pylist()
    assert f"product {search} (split search)" in reject["reason"] and f"product {test} (split test)" in reject["reason"]


def test_photos_of_one_product_never_lie_in_two_splits(tmp_path: Path) -> None:
    save_photos(tmp_path, range(10))
    search, test = key_in("search"), key_in("test")
    photo(0).save(tmp_path / "near.jpg", quality=85)
    keys = {f"{seed:02}.png": f"p{seed}" for seed in range(1, 10)}
    known_keys = {"00.png": search, **keys}
    known = as_known("coat", build_catalog("coat", entries_of(tmp_path, known_keys), NOTHING_KNOWN).images)
    save_photos(tmp_path / "more", range(20, 21))
    both = entries_of(tmp_path, {**known_keys, "near.jpg": test, "more/20.png": test})
    result = build_catalog("coat", both, known)
    [reject] = result.rejects.to_pylist()
    assert "has photos in split" in reject["reason"]
    splits = {row["split"] for row in result.images.to_pylist() if row["product"] == test}
    assert len(splits) == 1


# What the sensor sees


def test_the_sensor_sees_new_changed_and_removed_photos_and_nothing_else(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(3))

    def state() -> str:
        return listing_state(listed(tmp_path).entries)

    seen = [state()]
    assert state() == seen[0]
    save_photos(tmp_path / "coat", range(3, 4))
    seen.append(state())
    os.utime(tmp_path / "coat" / "00.png", (1, 1))
    seen.append(state())
    (tmp_path / "coat" / "00.txt").write_text("a red coat")
    seen.append(state())
    (tmp_path / "coat" / "03.png").unlink()
    seen.append(state())
    assert len(set(seen)) == 5
