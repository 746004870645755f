"""What the web server of the UI serves of the data root: of which version, and nothing outside of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fashion_pipeline.core.reports.links import page_link, picture_link, sample_link, version_link
from fashion_pipeline.core.rows import Pair
from fashion_pipeline.store.store import Store
from fashion_pipeline.web.pages import Pages
from fashion_pipeline_tests.conftest import Chain
from fashion_pipeline_tests.core.reports.planting import EVIL
from fashion_pipeline_tests.store.planting import put_in_use

SCORE = {"model": "specialised", "prompt": "plain", "measure": "encoder", "split": "dev"}


@pytest.fixture
def chain(small: Callable[..., Chain]) -> Chain:
    """A style with a catalog of its own photos, and nothing else."""
    from fashion_pipeline.stages.catalog.catalog import catalogue

    made = small(24)
    catalogue(made.store, "coat")
    return made


@pytest.fixture
def client(chain: Chain) -> TestClient:
    return TestClient(Starlette(routes=Pages(chain.store, chain.models).routes()))


def sample_row(id_: str, reference: str, model: str, seed: int) -> dict[str, object]:
    row = {"id": id_, "model": "f", "model_name": model, "prompt_name": "plain", "candidate": "c"}
    row |= {"prompt": "a photo of a coat", "negative_prompt": "", "seed": seed, "steps": 5, "guidance": 3.0}
    return (
        row
        | {"width": 64, "height": 64, "reference": reference, "product_group": reference}
        | {
            "split": "dev",
            "purpose": "dev",
        }
    )


def publish(chain: Chain, version: str, caption: str, seed: int) -> list[str]:
    """A version that was trained on every second photo and evaluated on one; returns the ids of all photos."""
    store = chain.store
    catalog = store.records.latest("catalog", "coat")
    ids = catalog.table("images")["id"].to_pylist()
    pairs = [Pair(id_, "reference", "", caption, k % 2 == 0, 0.5, "typical") for k, id_ in enumerate(ids)]
    tables = {"training_pairs": [vars(pair) for pair in pairs]}
    curation = store.records.add(
        "curation", "coat", inputs={"catalog": catalog}, tables=tables, run=f"run of {version}"
    )
    inputs = {"curation": curation, "catalog": catalog}
    training = store.records.add(
        "training", "coat", key=version, inputs=inputs, made_of={"control": False}, tables={"training_log": []}
    )
    drawn = [
        sample_row(f"{seed:032x}", ids[1], "specialised", seed),
        sample_row(f"{seed + 1:032x}", ids[1], "original", seed),
    ]
    for row in drawn:
        store.samples.write(str(row["id"]), Image.new("RGB", (8, 8), "navy"))
    scores = {**SCORE, "scope": "product", "product_group": ids[1], "value": 0.125 + seed / 1000, "low": None}
    evaluation = store.records.add(
        "evaluation",
        "coat",
        key=version,
        inputs={"training": training, "catalog": catalog},
        tables={"evaluation_samples": drawn, "scores": [scores | {"high": None, "anchored": None}], "nearest": []},
        files={"report.html": f"<p>report of {version}</p>"},
    )
    report = {"verdict": "better", "reason": EVIL, "scores": [SCORE | {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 1}]}
    put_in_use(
        store,
        "coat",
        version,
        training.folder,
        {"evaluation_report.json": report, "report.html": evaluation.path("report.html")},
        store.records.ancestry(evaluation),
    )
    return [str(id_) for id_ in ids]


def test_the_page_of_a_version_shows_what_that_version_was_made_of_and_not_what_came_after(
    chain: Chain, client: TestClient
) -> None:
    ids = publish(chain, "v1", "an old coat", seed=7)
    publish(chain, "v2", "a new coat", seed=8)
    page = client.get(version_link("coat", "v1")).text
    assert "an old coat" in page and "a new coat" not in page
    assert "Trained on 12 images" in page and page.count("an old coat") >= 12
    assert "seed 7" in page and "seed 8" not in page and "encoder 0.132" in page
    assert f"versions/coat/v1/photos/{ids[0]}" in page and f"photos/{ids[2]}" in page
    assert 'href="/runs/run%20of%20v1"' in page and 'href="/fashion/versions/coat/v2"' in page
    assert EVIL not in page and "&lt;script&gt;" in page
    assert client.get("/fashion/versions/coat/v1/report").text == "<p>report of v1</p>"


def test_every_picture_of_the_page_is_there(chain: Chain, client: TestClient) -> None:
    publish(chain, "v1", "a coat", seed=7)
    page = client.get(version_link("coat", "v1")).text
    links = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert len(links) == 12 + 1 + 2
    for link in links:
        answer = client.get(link)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/"), link


def test_a_photo_that_is_gone_is_shown_as_the_version_keeps_it_and_a_withdrawn_one_not_at_all(
    chain: Chain, client: TestClient
) -> None:
    ids = publish(chain, "v1", "a coat", seed=7)
    rows = {row["id"]: row for row in chain.store.records.latest("catalog", "coat").table("images").to_pylist()}
    folder = Path(chain.store.sources.source("coat").base)
    (folder / rows[ids[0]]["path"]).unlink()
    Image.new("RGB", (8, 8), "red").save(folder / rows[ids[2]]["path"])
    for gone in (ids[0], ids[2]):
        assert client.get(f"/fashion/versions/coat/v1/photos/{gone}").headers["content-type"] == "image/jpeg"
    chain.store.withdrawals.add("coat", [rows[ids[4]]])
    assert client.get(f"/fashion/versions/coat/v1/photos/{ids[4]}").status_code == 404
    page = client.get(version_link("coat", "v1")).text
    assert f"photos/{ids[4]}" not in page and f"photos/{ids[6]}" in page


def test_pictures_of_asset_pages_and_reports_are_served(chain: Chain, client: TestClient) -> None:
    name = chain.store.pictures.put("catalog", "coat", "abc", "photos", b"\x89PNG...")
    assert client.get(picture_link("catalog", "coat", "abc", name)).content == b"\x89PNG..."
    record = chain.store.records.add(
        "prompt_report", "coat", files={"report.html": "<p>prompts</p>"}, tables={"prompt_scores": []}
    )
    assert client.get(page_link("prompt_report", "coat", record.key)).text == "<p>prompts</p>"


def test_the_page_of_all_styles_leads_to_the_page_of_each(chain: Chain, client: TestClient) -> None:
    files = {"report.html": "<p>prompts</p>", "report.json": {"gains": []}}
    record = chain.store.records.add("prompt_report", "coat", files=files, tables={"prompt_scores": []})
    page = client.get("/fashion/").text
    link = page_link("prompt_report", "coat", record.key)
    assert f'href="{link}"' in page and client.get(link).text == "<p>prompts</p>"


@pytest.mark.parametrize(
    "address",
    [
        "/fashion/samples/..%2f..%2flayout.json",
        "/fashion/samples/%2e%2e",
        "/fashion/pictures/catalog/coat/abc/..%2f..%2f..%2f..%2flayout.json",
        "/fashion/pictures/..%2f..%2frecords/coat/abc/record.json",
        "/fashion/pictures/catalog/..%2fcoat/abc/photos.png",
        "/fashion/records/..%2fcatalog/coat/abc",
        "/fashion/records/evaluation/coat/..%2f..%2fabc",
        "/fashion/versions/..%2f..%2fsources/coat",
        "/fashion/versions/coat/..%2f..%2f..",
        "/fashion/versions/coat/..",
        "/fashion/versions/coat/v1/photos/..%2f..%2fsecret",
        "/fashion/versions/coat/v9",
        "/fashion/versions/coat/v1?part=99",
        "/fashion/samples/0123456789abcdef.png",
    ],
)
def test_nothing_else_is_served(chain: Chain, client: TestClient, address: str) -> None:
    publish(chain, "v1", "a coat", seed=7)
    (chain.store.root.parent / "secret").write_text("secret")
    answer = client.get(address)
    assert answer.status_code == 404 and "secret" not in answer.text.replace("%2fsecret", "").replace("/secret", "")


def test_pages_run_no_script_and_may_not_be_framed(chain: Chain, client: TestClient) -> None:
    publish(chain, "v1", "a coat", seed=7)
    for link in (version_link("coat", "v1"), "/fashion/versions/coat/v1/report", sample_link(f"{7:032x}")):
        policy = client.get(link).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "script-src" not in policy


def test_it_is_only_read(chain: Chain, client: TestClient) -> None:
    assert client.post(version_link("coat", "v1")).status_code == 405
    assert client.delete(version_link("coat", "v1")).status_code == 405


def test_long_versions_are_shown_in_parts(chain: Chain, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fashion_pipeline.stages.publishing.trails.PART", 5)
    publish(chain, "v1", "a coat", seed=7)
    first, last = client.get(version_link("coat", "v1")).text, client.get(version_link("coat", "v1") + "?part=3").text
    assert "Part 1 of 3" in first and "?part=2" in first and "Part 3 of 3" in last
    assert first.count("/photos/") == 6 and last.count("/photos/") == 2


def test_pruning_keeps_what_the_page_of_a_version_shows(chain: Chain, client: TestClient) -> None:
    from fashion_pipeline.store.pruning import remove_leftovers

    publish(chain, "v1", "an old coat", seed=7)
    publish(chain, "v2", "a new coat", seed=9)
    store: Store = chain.store
    store.pictures.put("curation", "coat", "gone", "pairs", b"\x89PNG...")
    remove_leftovers(store)
    assert store.pictures.all() == []
    page = client.get(version_link("coat", "v1")).text
    assert "an old coat" in page and client.get(sample_link(f"{7:032x}")).status_code == 200
