import base64
import io

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.evaluation.statistics import Interval
from fashion_pipeline.core.reports import pictures
from fashion_pipeline.core.tables import rows_to_table


def photo(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_data_links_say_what_they_hold():
    assert pictures.data_uri(pictures.png_bytes(photo())).startswith("data:image/png;base64,")
    assert pictures.data_uri(pictures.jpeg_bytes(photo())).startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="PNG, JPEG, WebP or SVG"):
        pictures.data_uri(b"<html>")


def test_large_photos_become_small_links():
    link = pictures.web_uri(photo(1200, 800), side=128)
    image = opened(base64.b64decode(link.split(",")[1]))
    assert image.size == (128, 85)
    assert np.array_equal(np.asarray(opened(base64.b64decode(pictures.web_uri(photo()).split(",")[1]))), photo())


def test_thumbnail_shows_the_whole_photo_on_white():
    tall = Image.new("RGB", (20, 80), "black")
    small = np.asarray(pictures.thumbnail(tall, 40))
    assert small.shape == (40, 40, 3)
    assert (small[:, 0] == 255).all()
    assert (small[:, 20] == 0).all()


def test_eight_thumbnails_fit_into_one_small_picture():
    sheet = pictures.contact_sheet([photo(96, 96)] * 8, columns=8, cell=48)
    assert sheet.height < 64
    assert len(pictures.png_bytes(sheet, colours=64)) < len(pictures.png_bytes(sheet))


def test_contact_sheet_wraps_and_shortens_long_captions():
    sheet = pictures.contact_sheet([photo()] * 5, ["a very long caption " * 9] * 5, columns=2, cell=64)
    assert sheet.width < 160
    assert sheet.height > 3 * 64
    with pytest.raises(ValueError, match="at least one image"):
        pictures.contact_sheet([])


def test_comparison_grid_leaves_missing_images_empty():
    black = Image.new("RGB", (64, 64), "black")
    grid = np.asarray(pictures.comparison_grid([[black, None]], ["photo", "original"], cell=64))
    assert (grid[40, 20] == 0).all()
    assert (grid[60, 110] == 255).all()
    with pytest.raises(ValueError, match="every heading"):
        pictures.comparison_grid([[black]], ["photo", "original"])


def test_loss_curve_draws_with_and_without_held_out_loss():
    for held_out in (0.2, None):
        row = {"loss": 0.3, "held_out_loss": held_out, "learning_rate": 1e-4, "gradient_norm": 1.0}
        log = rows_to_table("training_log", [row | {"step": step} for step in (1, 2, 3)])
        assert opened(pictures.loss_curve(log)).width > 500


def test_interval_chart_draws_a_mean_without_interval_and_labels_with_dollars():
    chart = pictures.interval_chart([("$a", Interval(0.1, 0.0, 0.2, 9)), ("b$", Interval(0.3, None, None, 1))])
    assert opened(chart).width > 500


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0], list(np.random.default_rng(0).normal(size=5000))])
def test_sparkline_is_short_enough_to_be_drawn_in_line(values):
    assert len(pictures.sparkline_svg(values)) <= 600


def test_markdown_table_shows_text_as_it_is():
    image = pictures.markdown_image("data:image/png;base64,AA==", "a|b")
    table = pictures.markdown_table([{"prompt": "<b>red|blue*\nline", "score": 0.123456, "image": image, "none": None}])
    assert table.splitlines() == [
        "| prompt | score | image | none |",
        "| --- | --- | --- | --- |",
        r"| &lt;b&gt;red\|blue\* line | 0.1235 | ![a\|b](data:image/png;base64,AA==) |  |",
    ]
    assert pictures.markdown_table([]) == ""
