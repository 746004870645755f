"""Photos in object storage are listed, catalogued and noticed when they change, as those on a disk are."""

import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec
from fashion_pipeline.intake.photos import PhotoError, open_photo, read_bytes
from fashion_pipeline.intake.sources import listing_state, read_source
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.intake.planting import listed, photo
from fashion_pipeline_tests.store.buckets import bucket

PHOTOS = "s3://fashion/photos"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with bucket():
        yield


def put(key: str, content: bytes | str) -> None:
    boto3.client("s3").put_object(Bucket="fashion", Key=f"photos/{key}", Body=content)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    photo(seed).save(stream, format="PNG")
    return stream.getvalue()


def put_photos(seeds: range, style: str = "Rain Coat") -> None:
    for seed in seeds:
        put(f"{style}/{seed:02}.png", png(seed))


def test_a_folder_per_style_with_captions_and_what_is_no_photo(tmp_path: Path) -> None:
    put_photos(range(10))
    put("Rain Coat/03.txt", "a blue coat")
    put("Rain Coat/04.txt", b"\xff\xfe\x00")
    put("Rain Coat/alone.txt", "nobody's")
    put("Rain Coat/list.pdf", "x")
    put("Rain Coat/.hidden.png", "x")
    put("Rain Coat/broken.jpg", "hello")
    put("loose.png", png(50))
    put_photos(range(60, 62), "Bag")
    store, spec = Store(tmp_path / "data"), SourceSpec(PHOTOS)
    listing = listed(PHOTOS)
    assert take_in(store, spec, listing) == ["bag", "rain-coat"]
    reasons = {reject.path.rpartition("/")[2]: reject.reason for reject in listing.rejects}
    assert set(reasons) == {"04.txt", "alone.txt", "list.pdf", "loose.png"}
    assert "not UTF-8" in reasons["04.txt"]
    assert f"move it into {PHOTOS}/<style>/" in reasons["loose.png"]
    made = catalogue(store, "rain-coat")
    rows = {row["path"]: row for row in made.images.to_pylist()}
    assert set(rows) == {f"Rain Coat/{seed:02}.png" for seed in range(10)}
    assert rows["Rain Coat/03.png"]["caption"] == "a blue coat"
    assert [row for row in made.rejects.to_pylist() if "broken.jpg" in row["path"]]
    found = store.photos(made.record)
    assert all(each.path.startswith(f"{PHOTOS}/Rain Coat/") for each in found)
    assert open_photo(found[0].path, 32, found[0].id).size == (32, 32)


def test_photos_that_come_change_or_go_change_the_state() -> None:
    put_photos(range(3))
    states = [listing_state(read_source(SourceSpec(PHOTOS)).entries) for _ in range(2)]
    put_photos(range(3, 4))
    states.append(listing_state(read_source(SourceSpec(PHOTOS)).entries))
    put("Rain Coat/00.png", png(90))
    states.append(listing_state(read_source(SourceSpec(PHOTOS)).entries))
    assert states[0] == states[1] and len(set(states)) == 3


def test_a_manifest_of_urls_and_of_paths(tmp_path: Path) -> None:
    put_photos(range(9), "images")
    urls = [f"{PHOTOS}/images/{seed:02}.png" for seed in range(8)]
    paths = [*urls, "images/08.png", "images/gone.png", "../other/secret.png", "s3://elsewhere/x.png"]
    stream = io.BytesIO()
    pq.write_table(pa.table({"style": ["coat"] * len(paths), "path": paths, "colour": ["Red"] * len(paths)}), stream)
    put("list.parquet", stream.getvalue())
    for place in (PHOTOS, f"{PHOTOS}/list.parquet"):
        store, spec = Store(tmp_path / place.rpartition("/")[2]), SourceSpec(place)
        listing = listed(place)
        take_in(store, spec, listing)
        assert sum("lies outside s3://fashion/photos" in reject.reason for reject in listing.rejects) == 2
        made = catalogue(store, "coat")
        assert sorted(made.images["path"].to_pylist()) == [f"images/{seed:02}.png" for seed in range(9)]
        assert {tuple(row["attributes"]) for row in made.images.to_pylist()} == {(("colour", "Red"),)}
        (reject,) = made.rejects.filter(pa.compute.match_substring(made.rejects["path"], "gone.png")).to_pylist()
        assert "there is no such object" in reject["reason"]


def test_what_is_wrong_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.csv", "style,path\n")
    put("b.csv", "style,path\n")
    with pytest.raises(CatalogError, match=r"s3://fashion/photos has 2 manifests \(a.csv, b.csv\): name the one"):
        read_source(SourceSpec(PHOTOS))
    with pytest.raises(CatalogError, match=r"no photos in s3://fashion/photos/a\.csv: add rows"):
        read_source(SourceSpec(f"{PHOTOS}/a.csv"))
    with pytest.raises(CatalogError, match="no photos in s3://fashion/nothing: put photos into"):
        read_source(SourceSpec("s3://fashion/nothing"))
    with pytest.raises(CatalogError, match="bucket does not exist: create it, or correct the URL"):
        read_source(SourceSpec("s3://nowhere/photos"))
    with pytest.raises(CatalogError, match="install the extra 'gs'"):
        read_source(SourceSpec("gs://x/photos"))
    with pytest.raises(PhotoError, match="there is no such object"):
        read_bytes(f"{PHOTOS}/gone.png")
    monkeypatch.setattr("fashion_pipeline.intake.photos.MAX_BYTES", 10)
    put_photos(range(1))
    with pytest.raises(PhotoError, match="export it smaller"):
        read_bytes(f"{PHOTOS}/Rain Coat/00.png")


def test_a_caption_is_asked_for_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    put_photos(range(3))
    for seed in range(3):
        put(f"Rain Coat/{seed:02}.txt", f"coat {seed}")
    asked: list[str] = []
    inside = S3FileSystem.cat_file
    monkeypatch.setattr(S3FileSystem, "cat_file", lambda fs, path, **o: (asked.append(path), inside(fs, path, **o))[1])

    def captions() -> list[str | None]:
        return [entry.caption for entry in read_source(SourceSpec(PHOTOS)).entries]

    assert captions() == captions() == ["coat 0", "coat 1", "coat 2"] and len(asked) == 3
    put("Rain Coat/01.txt", "another coat")
    assert captions() == ["coat 0", "another coat", "coat 2"] and len(asked) == 4


@pytest.mark.parametrize("name", ["bucket", "my-bucket-of-photos", "does-not-exist"])
def test_a_missing_photo_is_told_whatever_its_bucket_is_called(name: str) -> None:
    boto3.client("s3").create_bucket(Bucket=name)
    with pytest.raises(PhotoError, match="there is no such object: check that it exists"):
        read_bytes(f"s3://{name}/photos/gone.png")
    with pytest.raises(CatalogError, match=f"there is no s3://{name}/a.csv: name a folder"):
        read_source(SourceSpec(f"s3://{name}/a.csv"))
    with pytest.raises(PhotoError, match="bucket does not exist"):
        read_bytes("s3://nowhere/photos/gone.png")


def test_layouts_of_trainers_are_recognised_in_buckets_too() -> None:
    put("10_ohwx dress/00.png", png(0))
    put("10_ohwx dress/00.TXT", "zero")
    put("10_ohwx dress/00-masklabel.png", png(1))
    put("10_ohwx dress/01.png", png(2))
    put("10_ohwx dress/01.caption", "one")
    put("reg/1_dress/02.png", png(3))
    listing = read_source(SourceSpec(PHOTOS))
    assert [(entry.style, entry.caption) for entry in listing.entries] == [
        ("ohwx-dress", "zero"),
        ("ohwx-dress", "one"),
    ]
    assert not listing.rejects and len(listing.notes) == 3
