"""Photos that are withdrawn: out of the catalog for good, and everything that used one is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fashion_pipeline.cli import app
from fashion_pipeline.core.rows import Pair
from fashion_pipeline.defs.automation.jobs import BY_HAND, CATALOG
from fashion_pipeline.stages.publishing.publishing import approve, publish, withdrawn_behind
from fashion_pipeline.stages.publishing.tracing import find_photos, stale, trace_version, uses
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.storage import parquet
from fashion_pipeline_tests.conftest import Chain, errors
from fashion_pipeline_tests.store.planting import put_in_use


@pytest.fixture
def published(small: Callable[..., Chain]) -> Chain:
    """A style with a version, whose training took every second photo."""
    chain = small()
    assert chain.materialize(CATALOG, "coat").success
    records = chain.store.records
    catalog, features = records.latest("catalog", "coat"), records.latest("features", "coat")
    ids = catalog.table("images")["id"].to_pylist()
    pairs = [Pair(id_, "reference", "", f"caption {k}", k % 2 == 0, 0.5, "typical") for k, id_ in enumerate(ids)]
    curation = records.add(
        "curation",
        "coat",
        inputs={"catalog": catalog, "features": features},
        tables={"training_pairs": [vars(pair) for pair in pairs]},
    )
    inputs = {"curation": curation, "features": features, "catalog": catalog}
    training = records.add(
        "training", "coat", key="v1", inputs=inputs, made_of={"control": False}, tables={"training_log": []}
    )
    publish_version(chain, training)
    return chain


def publish_version(chain: Chain, training: Record) -> Path:
    report = {"verdict": "better", "reason": "Closer.", "scores": [], "gains": []}
    return put_in_use(
        chain.store,
        "coat",
        "v1",
        training.folder,
        {"evaluation_report.json": report},
        chain.store.records.ancestry(training),
    )


def photo(chain: Chain, place: int) -> tuple[str, Path]:
    row = chain.store.records.latest("catalog", "coat").table("images").to_pylist()[place]
    return row["id"], Path(chain.store.sources.source("coat").base) / row["path"]


def withdraw(chain: Chain, name: str) -> None:
    for style, rows in find_photos(chain.store, [name]).items():
        chain.store.withdrawals.add(style, rows)


def test_a_photo_is_known_by_path_by_id_and_by_the_beginning_of_one(published: Chain) -> None:
    id_, path = photo(published, 0)
    for name in (str(path), id_, id_[:12], f"coat/{path.name}"):
        assert [row["id"] for row in find_photos(published.store, [name])["coat"]] == [id_], name
    for wrong in ("nowhere.png", id_[:2]):
        with pytest.raises(StorageError, match="is in no catalog: name a photo by its path"):
            find_photos(published.store, [wrong])


def test_it_and_its_near_duplicates_are_never_taken_in_again(published: Chain, tmp_path: Path) -> None:
    id_, path = photo(published, 0)
    withdraw(published, str(path))
    Image.open(path).convert("RGB").save(path.with_name("saved anew.jpg"), quality=92)
    shutil.copy(path, path.with_name("renamed.png"))
    made = published.materialize(CATALOG[:1], "coat")
    assert made.success, errors(made)
    catalog = published.store.records.latest("catalog", "coat")
    assert id_ not in catalog.table("images")["id"].to_pylist()
    reasons = {Path(row["path"]).name: row["reason"] for row in catalog.table("rejects").to_pylist()}
    assert reasons[path.name] == reasons["renamed.png"] or "same file" in reasons["renamed.png"] + reasons[path.name]
    assert "nearly the same as a photo that was withdrawn" in reasons["saved anew.jpg"]
    assert any("it was withdrawn" in reason for reason in reasons.values())
    assert path.exists()


def test_everything_that_used_it_is_named_with_how_closely(published: Chain) -> None:
    trained, _ = photo(published, 0)
    control, _ = photo(published, 1)
    found = {use.kind: use.how for use in uses(published.store, "coat", {trained})}
    assert found == {
        "catalog": "in its catalog",
        "features": "in its catalog",
        "curation": "in its catalog",
        "training": "trained on",
        "version": "trained on",
    }
    assert {use.kind: use.how for use in uses(published.store, "coat", {control})}["version"] == "in its catalog"
    assert uses(published.store, "coat", {"0" * 64}) == []


def test_what_is_made_anew_is_stale_no_more_but_the_version_stays_so(published: Chain) -> None:
    id_, _ = photo(published, 0)
    assert stale(published.store) == []
    withdraw(published, id_)
    before = {(use.kind, use.key) for use in stale(published.store)}
    assert published.materialize(CATALOG, "coat").success
    now = published.store.records.latest("catalog", "coat")
    after = {(use.kind, use.key) for use in stale(published.store)}
    assert ("catalog", now.key) not in after and after == before and ("version", "v1") in after


def test_a_version_leads_back_to_its_photos_and_captions(published: Chain) -> None:
    found = trace_version(published.store, "coat", "v1")
    id_, path = photo(published, 0)
    first = next(each for each in found["trained_on"] if each["id"] == id_)
    assert first["caption"] == "caption 0" and path.as_posix().endswith(first["path"])
    assert len(found["trained_on"]) == 10 and found["records"]["training"] == "v1"
    with pytest.raises(StorageError, match="no version 'v9'"):
        trace_version(published.store, "coat", "v9")


def test_somebody_approves_what_waits_by_materialising_an_asset(published: Chain) -> None:
    versions = published.store.versions
    nothing = published.materialize(BY_HAND, "coat")
    assert not nothing.success and "no version of 'coat' waits for approval" in errors(nothing)[0]
    report = {"verdict": "better", "reason": "Closer.", "scores": [], "gains": [], "champion": "v1"}
    versions.assemble("coat", "v2", versions.folder("coat", "v1"), {"evaluation_report.json": report}, {})
    versions.hold("coat", "v2")
    assert versions.champion("coat").name == "v1"
    assert published.materialize(BY_HAND, "coat").success
    assert versions.champion("coat").name == "v2"


# The same as commands


@pytest.fixture
def command(published: Chain, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(published.store.root))
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_versions_are_listed_traced_and_rolled_back(published: Chain, command: Callable[..., Result]) -> None:
    listed = command("versions", "--style", "coat")
    assert listed.exit_code == 0 and "v1" in listed.output and "in use" in listed.output
    refused = command("rollback", "--style", "coat")
    assert refused.exit_code == 1 and "nothing to go back to" in refused.output
    assert "in use" in command("versions", "--style", "coat", "--delete", "v1").output
    traced = json.loads(command("trace", "v1", "--json").output)
    assert traced["version"] == "v1" and len(traced["trained_on"]) == 10
    shown = command("trace", "v1")
    assert shown.exit_code == 0 and "caption 0" in shown.output
    put_in_use(published.store, "coat", "v2", published.store.versions.folder("coat", "v1"), {}, {})
    assert "version v1 is in use again; v2 was taken back" in command("rollback", "--style", "coat").output
    assert "ublished as version v2" in command("publish", "--style", "coat", "--version", "v2").output
    assert published.store.versions.champion("coat").name == "v2"
    unknown = command("publish", "--style", "coat", "--version", "v9")
    assert unknown.exit_code == 1 and "has no version 'v9'" in unknown.output


def test_a_withdrawal_says_what_is_stale_and_tells_dagster(published: Chain, command: Callable[..., Result]) -> None:
    from fashion_pipeline.running.launching import opened_instance

    id_, path = photo(published, 0)
    told = command("trace", str(path))
    assert told.exit_code == 0 and id_[:16] in told.output and "trained on" in told.output
    asked = command("withdraw", str(path))
    assert asked.exit_code == 1 and "for good" in asked.output and not published.store.withdrawals.all()
    done = command("withdraw", "--yes", str(path))
    assert done.exit_code == 0 and "stale until it is made again: fashion-pipeline run --style coat" in done.output
    assert "version" in done.output and "trained on" in command("withdraw").output
    assert "withdrawn photos" in command("versions", "--style", "coat").output
    wrong = command("withdraw", "--yes", "nowhere.png")
    assert wrong.exit_code == 1 and "is in no catalog" in wrong.output
    with opened_instance(published.store) as instance:
        found = instance.fetch_observations(dg.AssetKey("lora_weights"), limit=5).records
    (seen,) = [record.asset_observation for record in found]
    assert seen.partition == "coat" and "withdrawn photo" in seen.metadata["stale"].value


def test_an_upload_that_is_only_tried_lists_what_others_need_and_no_photos(
    published: Chain, command: Callable[..., Result]
) -> None:
    tried = command("upload", "--style", "coat", "--to", "owner/name", "--dry-run")
    assert tried.exit_code == 0 and "would upload" in tried.output and "evaluation_report.json" in tried.output
    assert "trail/" not in tried.output and "report.html" not in tried.output
    whole = command("upload", "--style", "coat", "--to", "owner/name", "--dry-run", "--everything")
    assert "trail/curation/training_pairs.parquet" in whole.output
    missing = command("upload", "--style", "bag", "--to", "owner/name", "--dry-run")
    assert missing.exit_code == 1 and "no version of style 'bag' is published" in missing.output


def test_what_is_uploaded_goes_to_a_private_repository_in_one_commit_and_its_card_loads_it_from_there(
    published: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    from fashion_pipeline.stages.publishing.uploading import files_to_upload, upload_folder

    folder = published.store.versions.folder("coat", "v1")
    (folder / "README.md").write_text('from_pretrained("<this folder>")', encoding="utf-8")
    made: dict[str, Any] = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **options: made.update(repository=name, **options))
    monkeypatch.setattr(HfApi, "create_commit", lambda self, name, added, **options: made.update(added=added))
    upload_folder(folder, "owner/name", files_to_upload(folder))
    assert made["repository"] == "owner/name" and made["private"] is True
    files = {each.path_in_repo: each.path_or_fileobj for each in made["added"]}
    assert files["README.md"] == b'from_pretrained("owner/name")' and "evaluation_report.json" in files
    assert not [name for name in files if name.startswith("trail/")]


def test_a_withdrawal_says_what_to_do_about_each_version_in_use(
    published: Chain, command: Callable[..., Result]
) -> None:
    id_, _ = photo(published, 0)
    told = " ".join(command("withdraw", "--yes", id_).output.split())
    assert "coat: version v1 (in use) has 1 withdrawn (trained on) and stays in use" in told
    for mend in ("unpublish --style coat", "rollback --style coat", "versions --style coat --delete v1"):
        assert mend in told
    told = " ".join(command("unpublish", "--style", "coat").output.split())
    assert "version v1 is out of use and no other is in its place" in told and "--version v1" in told
    assert "coat: version v1 (rolled back) has 1 withdrawn" in " ".join(command("withdraw").output.split())
    assert "1 photos behind version v1 have been withdrawn" in " ".join(
        command("publish", "--style", "coat", "--version", "v1").output.split()
    )


def test_what_was_trained_on_a_withdrawn_photo_is_not_published_any_more(published: Chain) -> None:
    store = published.store
    training = store.records.latest("training", "coat")
    report = {"model": "v1", "verdict": "better", "reason": "Closer.", "champion": None, "against_champion": None}
    store.records.add(
        "evaluation", "coat", inputs={"training": training}, made_of=report, files={"report.json": report}
    )
    store.versions.unpublish("coat")
    store.versions.hold("coat", "v1")
    withdraw(published, photo(published, 1)[0])  # not trained on
    assert withdrawn_behind(store, "coat", "v1") == 0
    withdraw(published, photo(published, 0)[0])
    made = publish(store, published.models, "coat")
    assert made.folder is None and "1 of the photos that version v1 was trained on have been withdrawn" in made.reason
    with pytest.raises(StorageError, match="have been withdrawn since"):
        approve(store, "coat")
    assert store.versions.pointer("coat").version is None


def test_looking_for_a_photo_reads_no_thumbnail_and_no_earlier_catalog_unless_it_must(
    published: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = published.store
    newest = store.records.latest("catalog", "coat")
    rows = newest.table("images").to_pylist()
    store.records.add("catalog", "coat", tables={"images": rows[1:], "rejects": []})
    read: list[tuple[str, object]] = []
    inside = parquet.read_parquet

    def watched(table: str, path: Path, mend: str, columns: Any = None) -> Any:
        read.append((path.parent.name, tuple(columns) if columns else None))
        return inside(table, path, mend, columns)

    monkeypatch.setattr("fashion_pipeline.store.records.read_parquet", watched)
    monkeypatch.setattr("fashion_pipeline.stages.publishing.tracing.read_parquet", watched)
    assert find_photos(store, [rows[3]["id"]]) == {"coat": [rows[3]]}
    assert {place for place, _ in read} == {store.records.latest("catalog", "coat").folder.name}
    uses(store, "coat", {rows[3]["id"]})
    images = [columns for place, columns in read if columns is None]
    assert len(images) <= 4, "the row that was found, and training pairs, which have no pictures"
    assert find_photos(store, [rows[0]["id"]]) == {"coat": [rows[0]]}, "it is in an earlier catalog alone"
