"""What a run is said to cost: the chain's own test compares it with what a run really draws."""

from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.standing.costs import cost_of


def test_prompts_alone_train_nothing_and_a_small_style_draws_less() -> None:
    search = {"budget": 64, "held_out_products": 128}
    alone = cost_of(Models("embedded"), 10, search=search, training=None, products=128, contestants=2)
    assert (alone.images, alone.steps) == (64 + 2 * (3 + 1), 0)
