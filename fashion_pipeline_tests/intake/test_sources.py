"""What sources list: folders, manifests, IDX files; what is refused, and why."""

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

from fashion_pipeline.core.catalog.listing import PRODUCT_PHOTOS, CatalogError, ColumnMapping, SourceSpec, style_slug
from fashion_pipeline.intake.assembling import build_catalog
from fashion_pipeline.intake.sources import FASHION_MNIST, listing_state, read_source, read_style
from fashion_pipeline_tests.intake.planting import (
    NOTHING_KNOWN,
    listed,
    photo,
    product_row,
    reasons,
    save_photos,
)

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


# Manifests as other programs write them


def twelve(folder: Path) -> list[str]:
    """Rows of a manifest with twelve photos."""
    save_photos(folder, range(12))
    return [f"coat,{seed:02}.png,coat {seed}" for seed in range(12)]


def manifest_of(folder: Path, rows: list[str], header: str = "style,path,caption", **how: str) -> SourceSpec:
    (folder / "m.csv").write_text("\n".join([header, *rows]) + "\n", **{"encoding": "utf-8"} | how)  # type: ignore[arg-type]
    return SourceSpec(str(folder / "m.csv"))


@pytest.mark.parametrize(
    ("bad", "planted"),
    [
        (3, {3: 'coat,03.png,"a red coat'}),
        (3, {3: 'coat,03.png,"a red coat', 9: 'coat,09.png,"a blue coat"'}),
        (3, {3: 'coat,03.png,"a red coat', 9: 'coat,09.png,a blue coat"'}),
        (11, {11: 'coat,11.png,"a red coat'}),
        (0, {0: '"coat,00.png,a red coat'}),
        (5, {3: 'coat,03.png,"5" heel', 5: 'coat,05.png,"a red coat'}),
    ],
)
def test_a_quote_that_nobody_closes_takes_no_other_row_along(tmp_path: Path, bad: int, planted: dict[int, str]) -> None:
    rows = twelve(tmp_path)
    for at, row in planted.items():
        rows[at] = row
    listing = read_source(manifest_of(tmp_path, rows))
    found = {Path(entry.location).stem for entry in listing.entries}
    assert found == {f"{at:02}" for at in range(12) if at != bad}
    assert reasons(listing) == {f"m.csv:{bad + 2}": "a quote is not closed: close it, or remove it"}


def test_a_quoted_caption_may_have_commas_quotes_and_several_lines(tmp_path: Path) -> None:
    rows = twelve(tmp_path)
    rows[3] = 'coat,03.png,"a red coat, long\nwith ""gold"" buttons, and\na belt"'
    listing = read_source(manifest_of(tmp_path, rows))
    assert len(listing.entries) == 12 and not listing.rejects
    assert next(e.caption for e in listing.entries if e.location.endswith("03.png")) == (
        'a red coat, long\nwith "gold" buttons, and\na belt'
    )
    again = [r.replace(",", ";") if at != 3 else r for at, r in enumerate(rows)]
    again[3] = 'coat;03.png;"a red coat; long"'
    assert len(read_source(manifest_of(tmp_path, again, "style;path;caption")).entries) == 12


@pytest.mark.parametrize(
    ("header", "separator", "how"),
    [
        ("sep=;\nstyle;path;caption", ";", {}),
        ('"sep=,"\nstyle,path,caption', ",", {}),
        ("Style,Path,Caption", ",", {}),
        ("STYLE\tPATH\tCAPTION", "\t", {"encoding": "utf-16"}),
        ("style;path;caption", ";", {"encoding": "utf-8-sig", "newline": "\r\n"}),
        ("\n  \nstyle,path,caption", ",", {}),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, header: str, separator: str, how: dict[str, str]) -> None:
    rows = [row.replace(",", separator) for row in twelve(tmp_path)]
    listing = read_source(manifest_of(tmp_path, rows, header, **how))
    assert [entry.caption for entry in listing.entries] == [f"coat {seed}" for seed in range(12)]
    assert not listing.rejects and listing.styles() == ["coat"]


def test_a_column_that_is_there_twice_is_named_where_it_counts(tmp_path: Path) -> None:
    rows = [f"{row},x.png" for row in twelve(tmp_path)]
    for twice in ("path", "Path"):
        with pytest.raises(CatalogError, match="has the column 'path' more than once: remove or rename the others"):
            read_source(manifest_of(tmp_path, rows, f"style,path,caption,{twice}"))
    more = [f"{row},1" for row in rows]
    assert len(read_source(manifest_of(tmp_path, more, "style,path,caption,note,note")).entries) == 12


def parquet_of(folder: Path, **columns: object) -> SourceSpec:
    twelve(folder)
    table = {"style": ["coat"] * 12, "path": [f"{seed:02}.png" for seed in range(12)], **columns}
    pq.write_table(pa.table(table), folder / "m.parquet")
    return SourceSpec(str(folder / "m.parquet"))


def test_columns_of_a_parquet_file_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    times = pa.array([1_700_000_000_000_000_123] * 12, pa.timestamp("ns"))
    images = [{"bytes": bytes(500_000), "path": "x"}] * 12
    listing = read_source(parquet_of(tmp_path, taken=times, image=images, blob=[bytes(9)] * 12))
    assert len(listing.entries) == 12 and not listing.rejects


def test_columns_that_hold_no_texts_are_named_in_a_short_message(tmp_path: Path) -> None:
    images = [{"bytes": bytes(500_000), "path": "x"}] * 12
    with pytest.raises(CatalogError, match=r"m.parquet: column 'path' holds struct<bytes.*, not texts") as caught:
        read_source(parquet_of(tmp_path, path=images))
    assert len(str(caught.value)) < 600
    times = pa.array([1_700_000_000_000_000_123] * 12, pa.timestamp("ns"))
    assert read_source(parquet_of(tmp_path, caption=times)).entries[0].caption == "2023-11-14 22:13:20.000000123"
    spec = parquet_of(tmp_path, path=["x" * 5000] * 12)
    listing = read_style(spec, "coat")
    assert len(listing.rejects) == 12 and all(len(reject.reason) < 600 for reject in listing.rejects)


@pytest.mark.parametrize(("kind", "first"), [(pa.float32(), 2**24), (pa.float64(), 2**53)])
def test_ids_that_went_through_floats_are_refused_where_they_would_merge(
    tmp_path: Path, kind: pa.DataType, first: int
) -> None:
    fine = pa.array([float(seed) for seed in range(11)] + [float(first - 1)], kind)
    assert [entry.key for entry in read_source(parquet_of(tmp_path, id=fine)).entries][-1] == str(first - 1)
    merged = pa.array([float(first + seed) for seed in range(12)], kind)
    with pytest.raises(CatalogError, match=r"column 'id' holds numbers of .* or more as .*: write them as integers"):
        read_source(parquet_of(tmp_path, id=merged))
    exact = pa.array([first + seed for seed in range(12)], pa.int64())
    assert len({entry.key for entry in read_source(parquet_of(tmp_path, id=exact)).entries}) == 12
    names = pa.array([f"p{seed}" for seed in range(12)]).dictionary_encode()
    assert read_source(parquet_of(tmp_path, id=names)).entries[3].key == "p3"


# Folders as trainers have them


def test_captions_are_found_however_their_suffix_is_written(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(5))
    for name, text in {"00.TXT": "zero", "01.caption": "one", "02.txt": "two", "02.caption": "other"}.items():
        (tmp_path / "coat" / name).write_text(text)
    (tmp_path / "coat" / "99.caption").write_text("nothing")
    listing = listed(tmp_path)
    assert [entry.caption for entry in listing.entries] == ["zero", "one", "two", None, None]
    assert set(reasons(listing)) == {"99.caption", "02.caption"}
    assert "no photo of the same name" in reasons(listing)["99.caption"]


def test_folders_of_kohyas_trainer_are_read_by_what_they_show(tmp_path: Path) -> None:
    save_photos(tmp_path / "10_ohwx dress", range(2))
    save_photos(tmp_path / "3_ohwx dress", range(2, 4))
    save_photos(tmp_path / "reg" / "1_dress", range(4, 6))
    save_photos(tmp_path / "2024_summer", range(6, 7))
    save_photos(tmp_path / "coat", range(7, 8))
    listing = listed(tmp_path)
    assert listing.styles() == ["2024-summer", "coat", "ohwx-dress"]
    assert {entry.wording for entry in listing.of("ohwx-dress").entries} == {"ohwx dress"}
    assert len(read_style(SourceSpec(str(tmp_path)), "ohwx-dress").entries) == 4
    told = " ".join(listing.notes)
    assert "10_ohwx dress is named for kohya's trainer (10 repeats, which are not used here)" in told
    assert "reg holds images of regularisation, which are no style" in told


def test_a_whole_folder_of_kohyas_trainer_is_recognised(tmp_path: Path) -> None:
    for seed, name in enumerate(("img/10_dress", "img/5_coat", "reg/1_garment", "log", "model")):
        save_photos(tmp_path / name, range(seed, seed + 1))
    listing = listed(tmp_path)
    assert listing.styles() == ["coat", "dress"] and len(listing.entries) == 2
    assert "img holds folders of kohya's trainer" in " ".join(listing.notes)
    assert len(read_style(SourceSpec(str(tmp_path)), "dress").entries) == 1


def test_masks_beside_photos_are_no_photos(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(3))
    save_photos(tmp_path / "coat" / "masks", range(3))
    for name in ("00-masklabel.png", "01_mask.png", "carnival_mask.png"):
        photo(50).save(tmp_path / "coat" / name)
    listing = listed(tmp_path)
    names = [Path(entry.location).name for entry in listing.entries]
    assert names == ["00.png", "01.png", "02.png", "carnival_mask.png"] and not listing.rejects
    assert any("coat: 5 masks, such as 00-masklabel.png, are no photos" in note for note in listing.notes)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32", "cp1252"])
def test_a_manifest_in_an_encoding_that_cannot_be_told_says_what_to_save_it_as(tmp_path: Path, encoding: str) -> None:
    text = "style,path,caption\ncoat,00.png,M\u00e4ntel\n"
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    with pytest.raises(CatalogError, match=r"m.csv is not UTF-8 text .*: save it as UTF-8"):
        read_source(SourceSpec(str(tmp_path / "m.csv")))


def test_a_field_that_is_too_large_costs_its_row_alone(tmp_path: Path) -> None:
    rows = twelve(tmp_path)
    rows[3] = f'coat,03.png,"{"x" * 200_000}"'
    listing = read_source(manifest_of(tmp_path, rows))
    assert len(listing.entries) == 11 and "field larger than field limit" in reasons(listing)["m.csv:5"]
