"""The search on real photos and models: rounds, formats, prompts of one's own, and budgets that are too small."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.prompts.formats import FORMATS, Candidate
from fashion_pipeline.core.prompts.growing import GROWN, RUNGS, WORD
from fashion_pipeline.core.prompts.planning import Shot
from fashion_pipeline.core.prompts.requests import Drawing, GeneratorIdentity
from fashion_pipeline.core.prompts.search import BudgetError
from fashion_pipeline.core.rows import Photo, Sample, Split
from fashion_pipeline.stages.drawing.drawing import Studio
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.reports import report_prompts
from fashion_pipeline.stages.prompts.candidates import Written, write_candidates
from fashion_pipeline.stages.prompts.captions import caption_format
from fashion_pipeline.stages.prompts.looks import Looker
from fashion_pipeline.stages.prompts.search import LEFT_BEHIND, LOOKS_SHARE, Searched, _drawn_before, search
from fashion_pipeline.stages.prompts.similarity import compare_samples
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import STYLES, Chain, make_chain

BUDGET = 72


@pytest.fixture(scope="module")
def searching(described: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A data root of its own, since its searches would be another test's earlier rounds."""
    own = make_chain(tmp_path_factory.mktemp("search") / "data", described.store.root.parent / "photos")
    for style in STYLES:
        assert own.materialize(("raw_images", "clip_features"), style).success
    return own


def go(chain: Chain, budget: int = BUDGET, **asked: Any) -> tuple[Written, Searched]:
    written = write_candidates(chain.store, chain.models, "coat", **asked)
    limits: dict[str, Any] = {"budget": budget, "held_out_products": 2}
    return written, search(chain.store, chain.models, "coat", **limits, report=lambda text: None)


def searched_on(record: Record) -> set[str]:
    return {s.id for s in Sample.read(record.table("samples")) if s.purpose == Split.SEARCH}


@pytest.mark.thorough
def test_a_second_round_starts_from_the_winners_and_draws_none_of_their_images_again(searching: Chain) -> None:
    written, first = go(searching)
    assert written.round == 1 and first.spent <= BUDGET
    assert not [c for c in written.candidates if c.strategy == "evolved"]
    again, second = go(searching, rounds=2)
    assert again.round == 2
    assert {c.parent for c in again.candidates if c.strategy == "evolved"}
    assert second.spent <= BUDGET
    assert searched_on(first.record) < searched_on(second.record)
    assert second.drawn == len({s.id for s in second.samples} - {s.id for s in first.samples})

    before = {row["candidate"]: row for row in first.record.table("leaderboard").to_pylist()}
    after = {row["candidate"]: row for row in second.record.table("leaderboard").to_pylist()}
    assert before.keys() <= after.keys()
    assert all(after[candidate]["images"] >= row["images"] for candidate, row in before.items())
    left = [row["rung"] == LEFT_BEHIND for row in second.record.table("leaderboard").to_pylist()]
    assert left == sorted(left)
    best = first.record.table("leaderboard").to_pylist()[0]["candidate"]
    assert after[best]["rung"] != LEFT_BEHIND


@pytest.mark.thorough
def test_a_round_that_was_made_is_found_again(searching: Chain) -> None:
    go(searching)
    _, second = go(searching, rounds=2)
    _, again = go(searching, rounds=2)
    assert again.record.key == second.record.key and again.drawn == 0
    best = second.record.table("leaderboard").to_pylist()[0]["candidate"]
    _, third = go(searching, rounds=3)
    rungs = {row["candidate"]: row["rung"] for row in third.record.table("leaderboard").to_pylist()}
    assert rungs[best] != LEFT_BEHIND


def test_formats_are_compared_by_what_each_photos_own_prompt_draws(searching: Chain) -> None:
    _, found = go(searching)
    formats = found.record.table("formats").to_pylist()
    assert len(formats) >= 3 and all(row["images"] >= 4 for row in formats)
    assert caption_format(found.record) == next(row["format"] for row in formats if row["format"] != "plain")
    own = [s for s in found.samples if s.purpose == Split.SEARCH and s.prompt_name == "all_attributes"]
    assert len({s.prompt for s in own}) > 1


def test_a_prompt_of_ones_own_competes_whatever_its_text_is_worth(searching: Chain) -> None:
    _, found = go(searching, prompts=["a drawing of a teapot"])
    row = next(r for r in found.record.table("leaderboard").to_pylist() if r["strategy"] == "handwritten")
    assert (row["prompt"], row["images"] >= 4) == ("a drawing of a teapot", True)


def test_a_small_budget_is_spent_on_the_formats(searching: Chain) -> None:
    _, found = go(searching, budget=8)
    assert [row["strategy"] in FORMATS for row in found.record.table("leaderboard").to_pylist()] == [True, True]
    assert found.spent <= 8 and found.looked_at == found.record.table("formats").num_rows == 0
    with pytest.raises(BudgetError, match="a budget of 7 images cannot compare 2 prompts: allow 8 or more"):
        go(searching, budget=7)


def test_hundreds_of_prompts_are_looked_at_and_those_that_draw_the_style_compete(searching: Chain) -> None:
    written, found = go(searching, budget=384)
    explored = found.record.table("explored").to_pylist()
    strategies = Counter(row["strategy"] for row in explored)
    assert found.looked_at == len(explored) > 100
    assert strategies[WORD] > 90 and strategies[GROWN] >= 4 and strategies["plain"] >= 1
    assert not {row["prompt"] for row in explored} & {"a photo of a backpack", "a photo of a kurta"}  # not coats
    paid = sum(row["images"] for row in explored if row["strategy"] != WORD)
    assert paid <= 384 // LOOKS_SHARE and found.spent <= 384
    twins = {c.id for c in written.candidates if c.negative_prompt}
    names = {row["candidate"] for row in explored}
    assert written.negative and len(twins) == 3 and twins & names
    assert all(row["parent"] in names for row in explored if row["strategy"] == GROWN)
    closest = [row["candidate"] for row in explored if row["images"] == max(each["images"] for each in explored)]
    plain = next(c.id for c in written.candidates if c.strategy == "plain" and not c.is_varied)
    competed = {
        row["candidate"] for row in found.record.table("leaderboard").to_pylist() if row["guidance"] is None
    } - {plain}
    assert competed == set([each for each in closest if each != plain][: len(competed)])


def test_words_that_are_kept_out_are_in_no_prompt_but_ones_own(searching: Chain, tmp_path: Path) -> None:
    text = Path(searching.models.profile_name).read_text(encoding="utf-8")
    assert any("black" in c.phrases for c in write_candidates(searching.store, searching.models, "coat").candidates)
    (tmp_path / "never.toml").write_text(text.replace("[looks]", '[looks]\nnever = ["BLACK"]'), encoding="utf-8")
    models = Models(str(tmp_path / "never.toml"), machine=searching.models.machine)
    written = write_candidates(searching.store, models, "coat", prompts=["a black coat"])
    assert [c.prompt for c in written.candidates if "black" in c.prompt] == ["a black coat"]


def test_a_look_is_drawn_once_for_all_styles_and_found_again(searching: Chain) -> None:
    store, profile = searching.store, searching.models.profile
    said: list[str] = []
    with searching.models.generator() as generator, searching.models.encoder() as encoder:
        style = np.eye(1, 192, dtype=np.float32)[0]

        def looker(folder: Path | None = profile.looks.folder) -> Looker:
            looks = profile.looks.model_copy(update={"shipped": str(folder) if folder else None})
            return Looker(store, replace(profile, looks=looks), generator, encoder, style, said.append)

        word = Candidate(WORD, "a photo of a gown")
        shipped = looker().scores([word], RUNGS[0])
        assert not said
        drawn = looker(None).scores([word], RUNGS[0])
        assert said == ["looks: 1 of 1 prompts drawn with 2 seeds"]
        assert drawn == pytest.approx(shipped, abs=0.01)  # another machine's last bits
        further = looker(None).scores([word], RUNGS[1])
        said.clear()
        assert looker(None).scores([word], RUNGS[1]) == further
        assert looker(None).scores([word], RUNGS[0]) == drawn and not said


def test_a_report_says_whether_the_best_prompt_helps_by_the_rules_of_a_model(searching: Chain) -> None:
    go(searching)
    compare_samples(searching.store, searching.models, "coat", lambda text: None)
    made = report_prompts(searching.store, searching.models, "coat", lambda text: None)
    told = made.report.as_json()["prompt_verdict"]
    assert told["verdict"] == "undecided" and "Only 2 dev products" in told["reason"]
    measures = {cell.measure for cell in made.report.scores}
    assert measures == {"encoder", "judge", "prompt", "recognised", "garment"}
    page = made.record.path("report.html").read_text(encoding="utf-8")
    assert "The best prompt: undecided." in page and "Which words help" in page and "What the images" in page


def test_the_best_words_are_drawn_at_other_guidance_scales_and_the_best_of_them_is_used(searching: Chain) -> None:
    _, found = go(searching, budget=96)
    rows = found.record.table("leaderboard").to_pylist()
    words = (rows[0]["prompt"], rows[0]["negative_prompt"])
    scales = [row["guidance"] for row in rows if (row["prompt"], row["negative_prompt"]) == words]
    assert set(scales) == {None, 2.0, 5.0, 7.5} and all(row["images"] >= 4 for row in rows[:4])
    assert [row["guidance"] for row in rows[4:]] == [None] * (len(rows) - 4)
    usual = searching.models.profile.generation.guidance
    for sample in (s for s in found.samples if s.purpose != Split.SEARCH):
        best = sample.prompt_name == "best"
        assert sample.guidance == ((scales[0] or usual) if best else usual)
    _, cheap = go(searching, budget=64)
    assert {row["guidance"] for row in cheap.record.table("leaderboard").to_pylist()} == {None}


def test_a_round_rests_on_no_image_that_it_would_draw_otherwise(searching: Chain) -> None:
    _, found = go(searching)
    photos = {photo.id: photo for photo in searching.store.photos(searching.store.records.latest("catalog", "coat"))}
    drawing = searching.models.profile.generation
    generator = str(found.record.made_of["generator"])

    def kept(drawing: Drawing, generator: str = generator) -> int:
        return len(_drawn_before(found.record, generator, drawing, photos))

    assert kept(drawing) == len(searched_on(found.record))
    for change in ({"steps": drawing.steps + 1}, {"image_size": 2 * drawing.image_size}):
        assert kept(drawing.model_copy(update=change)) == 0, change
    scaled = {row["candidate"] for row in found.record.table("leaderboard").to_pylist() if row["guidance"] is not None}
    own_scale = [s for s in found.samples if s.purpose == Split.SEARCH and s.candidate in scaled]
    assert kept(drawing.model_copy(update={"guidance": 9.0})) == len({s.id for s in own_scale})
    assert kept(drawing, "another generator") == 0 and kept(drawing.model_copy(update={"batch_size": 2})) > 0


class Short:
    """A painter with memory for a smaller batch than it was asked for."""

    def __init__(self, shape: int) -> None:
        self.shape, self.asked, self.drawn = shape, shape, 0

    def identity(self) -> GeneratorIdentity:
        return GeneratorIdentity("generator", self.shape, {}, {})

    def draw(self, requests: Any) -> Any:
        self.shape = 8  # memory ran out at 16
        for index, request in enumerate(requests):
            self.drawn += 1
            yield SimpleNamespace(
                index=index, id=self.identity().sample_id(request), image=Image.new("RGB", (8, 8), "red")
            )


def test_what_was_drawn_in_smaller_batches_since_memory_ran_out_is_found_again(tmp_path: Path) -> None:
    store, drawing = Store(tmp_path), Drawing(image_size=8, steps=1, guidance=1.0, batch_size=16)
    photo = Photo("p", "g", "dev", "p", "p.png", None, {})
    shots = [Shot(Candidate("plain", f"a coat {k}", ""), photo, "dev", "plain", k) for k in range(20)]
    samples = []
    for expected in (20, 0):
        painter = Short(16)
        studio = Studio(store, painter, "original", drawing, lambda text: None)  # type: ignore[arg-type]
        samples.append(studio.shoot(shots))
        assert painter.drawn == studio.drawn == expected
    assert samples[0] == samples[1]
