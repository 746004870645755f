import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow.compute as pc
import pytest

from fashion_pipeline.core.evaluation.verdicts import decide
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.growing import GROWN, WORD
from fashion_pipeline.core.reports.figures import CONDITIONS, summary
from fashion_pipeline.core.reports.report import ComparisonRow, Lineage, ReportData, render_html
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline_tests.core.reports.planting import EVIL, picture, planted_page, planted_scores


class Page(HTMLParser):
    """Tags, links and visible text of a page; raises AssertionError where tags do not nest."""

    void = frozenset({"meta", "link", "img", "br", "line", "circle", "polyline", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [
            (tag, value) for name, value in attributes if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag not in self.void:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def scores():
    return planted_scores()


@pytest.fixture(scope="module")
def full():
    return planted_page()


def test_text_from_outside_shows_as_text(full):
    html = render_html(full)
    assert "<script" not in html.lower()
    assert Page(html).text.count(EVIL) >= 15
    assert "javascript:" not in html


def test_page_makes_no_request(full):
    html = render_html(full)
    page = Page(html)
    assert all(link.startswith(("data:", "#", "/fashion/", "/runs/")) for _, link in page.links)
    assert not re.search(r"(?i)@import|url\(|https?://", html)
    assert {"script", "iframe", "object"}.isdisjoint(page.tags)
    assert page.tags.count("img") == 5 + 2 + 4 + 1


def test_run_id_links_to_the_run(full):
    url = "http://127.0.0.1:3000/runs/1"
    page = Page(render_html(replace(full, lineage=Lineage(run_id="1", run_url=url))))
    assert [link for tag, link in page.links if tag == "a" and not link.startswith(("#", "/"))] == [url]


def test_page_shows_every_part(full):
    text = Page(render_html(full)).text
    for heading in (
        "Training on top of the best words",
        "from_pretrained",
        "product by product",
        "Anchored",
        "words alone",
        "All pictures together",
        "by heart",
        "Would drawing more do as well?",
        "What gained, and what did not",
        "learned",
        "Recipe",
        "read this",
    ):
        assert heading in text
    assert "n = 45 products" in text
    assert "n = 12 products: too few" in text


def test_page_of_prompts_alone_has_no_column_for_a_specialised_model(full, scores):
    original = scores.filter(pc.equal(scores["model"], "original"))
    row = ComparisonRow(picture(), {c: picture() for c in CONDITIONS[:2]})
    without = {
        "decision": None,
        "model": None,
        "training_log": None,
        "recipe": {},
        "equal_cost": (),
        "attributes": (),
        "copies": (),
    }
    data = replace(full, verdict=None, prompt_verdict=None, scores=original, rows=[row], **without)
    text = Page(render_html(data)).text
    assert "No verdict yet" in text
    assert "How it learned" not in text
    assert "Specialised" not in text.split("How to read this")[0]


def test_prompts_that_were_looked_at_are_shown_with_what_they_grew_from(full):
    rows = [
        {
            "candidate": name,
            "strategy": strategy,
            "prompt": prompt,
            "negative_prompt": "",
            "phrases": [],
            "score": score,
        }
        | {"parent": parent, "images": 16}
        for name, strategy, prompt, parent, score in (
            ("b", GROWN, "a photo of a red gown", "a", 0.7),
            ("a", WORD, "a photo of a gown", None, 0.6),
            *((f"w{k}", WORD, f"a photo of word {k}", None, 0.1) for k in range(20)),
        )
    ]
    html = render_html(replace(full, explored=rows_to_table("explored", rows), look_thumbnails={}))
    text = Page(html).text
    assert "different products of the style score" not in text
    real = Page(render_html(replace(full, among_photos=0.668))).text
    assert "different products of the style score 0.668 among themselves" in real
    assert "22 prompts were looked at before" in text
    assert "from: a photo of a gown" in text and text.count("from: ") == 1
    assert "word 9" in text and "word 15" not in text  # the closest twelve


def test_how_far_the_best_prompt_fell_on_photos_it_was_not_chosen_on_is_said(full):
    keys = {"model": "original", "prompt": "best", "measure": "encoder", "scope": "product", "product_group": "p"}
    scores = rows_to_table("scores", [keys | {"split": s, "value": v} for s, v in (("dev", 0.45), ("test", 0.4))])
    text = Page(render_html(replace(full, scores=scores))).text
    assert "scores 0.500 on the photos that it was chosen on, 0.450 on dev and 0.400 on test" in text
    assert "it was chosen on" not in Page(render_html(replace(full, scores=scores.slice(0, 1)))).text


def test_page_of_training_alone_has_no_prompt_search(full, scores):
    plain = scores.filter(pc.equal(scores["prompt"], "plain"))
    searched = {"leaderboard": None, "explored": None, "optimized_prompt": None, "strategy": None, "thumbnails": {}}
    data = replace(full, scores=plain, **searched)
    text = Page(render_html(data)).text
    assert "words alone change" not in text
    assert "How it learned" in text


def test_page_of_a_style_alone_renders():
    assert "coat" in Page(render_html(ReportData("coat"))).text


def test_one_product_renders_without_interval():
    keys = {"model": "original", "prompt": "plain", "measure": "encoder", "split": "dev", "product_group": "p"}
    scores = rows_to_table("scores", [keys | {"scope": "product", "value": 0.5}])
    assert "no interval" in render_html(ReportData("coat", scores=scores))


def test_empty_tables_render():
    tables = {name: rows_to_table(name, []) for name in ("scores", "leaderboard", "training_log")}
    assert "coat" in render_html(ReportData("coat", **tables))


def test_summary_is_json_with_every_cell_and_gain(scores):
    verdict = decide(scores)
    result = summary(
        scores, style="coat", profile="embedded", best=Candidate("plain", "a coat"), guidance=3.0, verdict=verdict
    ).as_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result)[:7] == [
        "style",
        "profile",
        "optimized_prompt",
        "negative_prompt",
        "guidance_scale",
        "strategy",
        "similarity_score",
    ]
    assert (result["optimized_prompt"], result["guidance_scale"]) == ("a coat", 3.0)
    assert len(result["scores"]) - 3 == len(result["gains"]) == 16
    assert set(result["scores"][0]) == {"model", "prompt", "measure", "split", "mean", "low", "high", "n"}
    assert result["similarity_score"] == pytest.approx(0.6, abs=0.03)
    gain = next(g for g in result["gains"] if (g["model"], g["prompt"], g["split"]) == ("specialised", "plain", "dev"))
    assert gain["against"] == {"model": "original", "prompt": "plain"}
    assert gain["mean"] == pytest.approx(0.2, abs=0.03)
    assert (result["verdict"], result["reason"]) == (verdict.name, verdict.reason)


def test_summary_without_test_scores_has_no_similarity_score(scores):
    dev = scores.filter(pc.equal(scores["split"], "dev"))
    result = summary(
        dev, style="coat", profile="embedded", best=Candidate("plain", "a coat"), guidance=3.0, verdict=None
    ).as_json()
    assert result["similarity_score"] is None
    assert result["verdict"] is None


def test_a_measure_of_all_samples_together_is_a_row_of_its_own_with_the_interval_it_came_with(scores):
    keys = {"prompt": "plain", "measure": "distance", "scope": "set", "split": "dev"}
    rows = [
        keys | {"model": m, "value": v, "low": v - 0.1, "high": v + 0.1}
        for m, v in (("original", 0.7), ("specialised", 0.4))
    ]
    whole = rows_to_table("scores", [*scores.to_pylist(), *rows])
    text = Page(render_html(ReportData("coat", scores=whole))).text
    assert "Distance to the photos" in text and "0.300 to 0.500" in text and "n = 0" not in text
    result = summary(
        whole, style="coat", profile="p", best=Candidate("plain", "a coat"), guidance=3.0, verdict=None
    ).as_json()
    (found,) = [s for s in result["scores"] if (s["measure"], s["model"]) == ("distance", "specialised")]
    assert (found["mean"], found["n"]) == (pytest.approx(0.4), 0)
    assert decide(whole) == decide(scores)
