"""From a listing to a style's catalog: what is taken, what is refused and why, and what stays as it was."""

from pathlib import Path

import pyarrow as pa
import pytest

from fashion_pipeline.core.catalog.listing import (
    CatalogError,
    Entry,
)
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.core.tables import rows_to_table, schema
from fashion_pipeline.intake import assembling as catalog_module
from fashion_pipeline.intake.assembling import build_catalog, near_held_out, torn_near_duplicates
from fashion_pipeline_tests.intake.planting import (
    NOTHING_KNOWN,
    built,
    key_in,
    known,
    listed,
    photo,
    save_photos,
)


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
    monkeypatch.setattr(catalog_module, "decoders", None)
    second = built(tmp_path, "coat", known(first)).images
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
    second = built(tmp_path, "coat", known(first)).images
    splits = {row["id"]: (row["product_group"], row["split"]) for row in second.to_pylist()}
    kept = {row["id"]: (row["product_group"], row["split"]) for row in first.to_pylist() if "07.png" not in row["path"]}
    assert len(splits) == 29 and kept.items() <= splits.items()


def test_a_recompressed_photo_joins_its_original_also_in_another_style(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(9))
    save_photos(tmp_path / "dress", range(20, 29))
    first = built(tmp_path, "coat").images
    photo(0).save(tmp_path / "dress" / "copy.jpg", quality=85)
    second = built(tmp_path, "dress", known(others=first)).images.to_pylist()
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
    assert torn_near_duplicates(known(images)) == []
    rows = images.to_pylist()
    other = next(row for row in rows if row["split"] != rows[0]["split"])
    other |= {name: rows[0][name] for name in ("perceptual_hash", "thumbnail")}
    assert torn_near_duplicates(known(rows_to_table("images", rows))) == [(rows[0]["id"], other["id"])]
    one, another = (rows_to_table("images", [row]) for row in (rows[0], other))
    assert torn_near_duplicates(known(one, another)) == [(rows[0]["id"], other["id"])]
    held_out = rows[0] if rows[0]["split"] != "search" else other
    trained = other if held_out is rows[0] else rows[0]
    alone = known(rows_to_table("images", [trained | {"split": "search"}]), rows_to_table("images", [held_out]))
    assert near_held_out({trained["id"]}, alone) == [trained["id"]] and near_held_out({"none"}, alone) == []


def test_a_copy_still_joins_its_group_when_the_photo_that_founded_it_is_gone(tmp_path: Path) -> None:
    save_photos(tmp_path / "coat", range(9))
    images = built(tmp_path, "coat").images
    position = next(n for n, path in enumerate(images["path"].to_pylist()) if path.endswith("00.png"))
    groups = images["product_group"].to_pylist()
    groups[position] = "gone"
    images = images.set_column(
        images.schema.get_field_index("product_group"), images.schema.field("product_group"), [groups]
    )
    photo(0).save(tmp_path / "coat" / "copy.jpg", quality=85)
    rows = built(tmp_path, "coat", known(images)).images.to_pylist()
    assert next(row for row in rows if row["path"].endswith("copy.jpg"))["product_group"] == "gone"


def entries_of(folder: Path, keys: dict[str, str]) -> list[Entry]:
    return [Entry("coat", "coat", "coat", key, str(folder / name)) for name, key in keys.items()]


def test_a_photo_between_two_splits_is_refused_naming_both(tmp_path: Path) -> None:
    save_photos(tmp_path, range(9))
    keys = {f"{seed:02}.png": f"p{seed}" for seed in range(9)}
    images = build_catalog("coat", entries_of(tmp_path, keys), NOTHING_KNOWN).images
    search, test = key_in("search"), key_in("test")
    row = images.slice(0, 1).to_pylist()[0]
    planted = [
        {**row, "id": key, "product": key, "product_group": key, "split": split_of(key)} for key in (search, test)
    ]
    images = pa.concat_tables([images.slice(1), pa.Table.from_pylist(planted, schema=images.schema)])
    result = build_catalog("coat", entries_of(tmp_path, keys), known(images))
    [reject] = result.rejects.to_pylist()
    assert f"product {search} (split search)" in reject["reason"] and f"product {test} (split test)" in reject["reason"]


def test_photos_of_one_product_never_lie_in_two_splits(tmp_path: Path) -> None:
    save_photos(tmp_path, range(10))
    search, test = key_in("search"), key_in("test")
    photo(0).save(tmp_path / "near.jpg", quality=85)
    keys = {f"{seed:02}.png": f"p{seed}" for seed in range(1, 10)}
    known_keys = {"00.png": search, **keys}
    images = build_catalog("coat", entries_of(tmp_path, known_keys), NOTHING_KNOWN).images
    save_photos(tmp_path / "more", range(20, 21))
    both = entries_of(tmp_path, {**known_keys, "near.jpg": test, "more/20.png": test})
    result = build_catalog("coat", both, known(images))
    [reject] = result.rejects.to_pylist()
    assert "has photos in split" in reject["reason"]
    splits = {row["split"] for row in result.images.to_pylist() if row["product"] == test}
    assert len(splits) == 1
