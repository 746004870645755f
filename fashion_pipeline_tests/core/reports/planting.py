"""A page with everything on it, and text from outside everywhere."""

import numpy as np
import pyarrow as pa
from PIL import Image

from fashion_pipeline.core.evaluation.decisions import Decision, Gains
from fashion_pipeline.core.evaluation.statistics import Interval
from fashion_pipeline.core.evaluation.verdicts import Verdict
from fashion_pipeline.core.prompts.growing import GROWN
from fashion_pipeline.core.reports.figures import CONDITIONS
from fashion_pipeline.core.reports.links import index_link, run_link, version_link
from fashion_pipeline.core.reports.pictures import webp_bytes
from fashion_pipeline.core.reports.report import ComparisonRow, CopyPair, Lineage, Loading, ReportData
from fashion_pipeline.core.tables import rows_to_table

EVIL = "<script>alert(1)</script>"
GAIN = {"mean": 0.1, "low": 0.05, "high": 0.15, "n": 20}


def picture() -> Image.Image:
    """A picture."""
    return Image.new("RGB", (64, 64), "navy")


def planted_scores() -> pa.Table:
    """Scores by encoder and judge of all cells, and measures of sets."""
    rng = np.random.default_rng(0)
    rows = [
        {"model": c.model, "prompt": c.prompt, "measure": encoder, "split": split, "product_group": f"p{i}"}
        | {"scope": "product", "value": 0.5 + 0.1 * position + rng.normal(0, 0.02)}
        | {"anchored": 0.25 if encoder == "encoder" else None}
        for position, c in enumerate(CONDITIONS[:4])
        for encoder in ("encoder", "judge")
        for split, n in (("dev", 45), ("test", 12))
        for i in range(n)
    ]
    keys = {"measure": "diversity", "scope": "set", "split": "dev"}
    cells = {("original", "plain"): 9.0, ("specialised", "plain"): 7.0, ("photos", "photos"): 8.0}
    rows += [
        keys | {"model": model, "prompt": prompt, "value": value, "low": value - 1, "high": value + 1}
        for (model, prompt), value in cells.items()
    ]
    return rows_to_table("scores", rows)


def planted_decision() -> Decision:
    """One with all its gains."""
    gains = Gains(encoder=Interval(**GAIN), judge=Interval(**GAIN))
    return Decision(
        name="better",
        publish=True,
        headline=EVIL,
        reason=EVIL,
        words=gains,
        training=gains,
        beyond_words=gains,
        against_champion=gains,
    )


def planted_page() -> ReportData:
    """Every part of a page, with text from outside wherever there is room for any."""
    entry = {
        "candidate": "c",
        "strategy": EVIL,
        "prompt": EVIL,
        "negative_prompt": EVIL,
        "images": 9,
        "products": 9,
        "rung": 1,
    }
    looked_at = {"candidate": "c", "strategy": EVIL, "prompt": EVIL, "negative_prompt": EVIL, "phrases": [EVIL]}
    looked_at |= {"parent": None, "images": 16, "score": 0.4}
    grown = looked_at | {"candidate": "d", "strategy": GROWN, "parent": "c", "prompt": f"{EVIL}, red"}
    log = {"step": 1, "loss": 0.5, "held_out_loss": 0.6, "learning_rate": 1e-4, "gradient_norm": 1.0}
    return ReportData(
        EVIL,
        profile=EVIL,
        verdict=Verdict("better", EVIL),
        decision=planted_decision(),
        plain_prompt=EVIL,
        optimized_prompt=EVIL,
        negative_prompt=EVIL,
        strategy=EVIL,
        model=Loading(EVIL, f"pipeline = StableDiffusionPipeline.from_pretrained({EVIL!r})"),
        links={"styles": index_link(), "trail": version_link("coat", EVIL), "run": run_link(EVIL)},
        scores=planted_scores(),
        rows=[ComparisonRow(picture(), {c: picture() for c in CONDITIONS[:4]}, EVIL), ComparisonRow(None, {}, "")],
        leaderboard=rows_to_table("leaderboard", [entry | {"mean": 0.5, "low": 0.4, "high": 0.6}]),
        explored=rows_to_table("explored", [looked_at, grown]),
        look_thumbnails={EVIL: webp_bytes(picture(), 64)},
        thumbnails={"c": [picture()] * 6},
        training_log=rows_to_table("training_log", [log, log | {"step": 2, "held_out_loss": None}]),
        copies=[CopyPair(picture(), picture(), True, {"judge": (0.1, 0.2), "colour": (0.3, 0.2)})],
        equal_cost=[{"images": 2} | dict.fromkeys(("original", "specialised", "gain", "one_against"), GAIN)],
        attributes=[{"facet": EVIL, "value": EVIL, "encoder": GAIN, "judge": GAIN}],
        recipe={EVIL: EVIL, "learning_rate": 1e-4},
        lineage=Lineage({EVIL: 5}, 1, {EVIL: EVIL}, EVIL, "javascript:alert(1)", EVIL, EVIL, EVIL),
    )
