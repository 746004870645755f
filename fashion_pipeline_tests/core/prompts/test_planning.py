"""Which prompt is drawn for which photo with which seed."""

import pytest

from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.planning import photos_of, plan, sample_of
from fashion_pipeline.core.prompts.requests import Drawing, GeneratorIdentity, Request
from fashion_pipeline.core.rows import Photo, Sample

PLAIN, BEST = Candidate("plain", "a coat"), Candidate("all_attributes", "a green coat", "blurry")
COAT = Request("a coat")
DRAWING = Drawing(image_size=64, steps=5, guidance=3.0, batch_size=4)
BOTH = [("plain", PLAIN), ("best", BEST)]
PHOTOS = [Photo(f"photo{k}", f"group{k}", "dev") for k in range(3)]


def images(*rows: tuple[str, str, str]) -> list[Photo]:
    return [Photo(*row) for row in rows]


def test_all_candidates_of_a_product_are_drawn_with_the_same_seed() -> None:
    requests = [(shot.photo, shot.request(DRAWING)) for shot in plan(BOTH, PHOTOS, "dev")]
    for photo in PHOTOS:
        assert len({request.seed for other, request in requests if other == photo}) == 1
    assert len({request.seed for _, request in requests}) == len(PHOTOS)


def test_every_prompt_is_drawn_for_every_photo() -> None:
    shots = plan(BOTH, PHOTOS, "dev")
    assert [(shot.photo.id, shot.prompt_name) for shot in shots] == [
        (photo.id, name) for photo in PHOTOS for name in ("plain", "best")
    ]


def test_a_product_with_many_photos_counts_once() -> None:
    table = images(("b", "coat1", "dev"), ("a", "coat1", "dev"), ("c", "coat2", "dev"), ("d", "coat3", "test"))
    assert sorted(photo.id for photo in photos_of(table, "dev")) == ["a", "c"]
    assert photos_of(table, "search") == []


def test_a_smaller_sample_of_photos_is_part_of_the_larger_one() -> None:
    table = images(*((f"p{k}", f"g{k}", "dev") for k in range(30)))
    assert photos_of(table, "dev", 5) == photos_of(table, "dev", 12)[:5]
    assert len(photos_of(table, "dev", 100)) == 30


def test_a_sample_remembers_all_that_it_was_drawn_with() -> None:
    shot = plan([("best", BEST)], PHOTOS[:1], "dev")[0]
    request = shot.request(DRAWING)
    row: Sample = sample_of(shot, request, "ab12", "model", "original")
    assert (row.prompt, row.negative_prompt, row.prompt_name) == ("a green coat", "blurry", "best")
    assert (row.candidate, row.reference, row.product_group) == (BEST.id, "photo0", "group0")
    assert (row.seed, row.width, row.height, row.steps) == (request.seed, 64, 64, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0: ask for 1 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, r"choose one from 0 to 2\*\*63 - 1"),
        ({"width": 65}, "width is 65 pixels: choose a positive multiple of 8"),
        ({"height": 0}, "height is 0 pixels"),
    ],
)
def test_an_image_that_cannot_be_drawn_is_refused_with_the_mend(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request("a coat", **wrong)


def test_whatever_changes_an_image_changes_its_name() -> None:
    def name(request: Request = COAT, model: str = "m", batch: int = 4, precision: str = "fp32") -> str:
        return GeneratorIdentity(model, batch, {"name": "ddim"}, {"precision": precision}).sample_id(request)

    others = [name(Request("a hat")), name(Request("a coat", seed=1)), name(model="n"), name(batch=8)]
    others += [
        name(precision="bf16"),
        GeneratorIdentity("m", 4, {"name": "euler"}, {"precision": "fp32"}).sample_id(Request("a coat")),
    ]
    assert name() == name() and len({name(), *others}) == 7
