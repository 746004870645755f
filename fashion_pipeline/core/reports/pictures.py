"""Pictures and small Markdown for people: contact sheets, before/after grids, curves, intervals.

White ground, colours that stay apart for colour-blind readers (Okabe and Ito 2008), nothing without information.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fashion_pipeline.core.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072B2"
INK = "#1d1d1f"
GREY = "#86868b"
FAINT = "#e8e8ed"

_GAP = 6
_CAPTION = 11


class Markdown(str):
    """Text that is Markdown already: `markdown_table` leaves it as it is."""


# Images as bytes and links


def png_bytes(image: Image.Image, *, colours: int | None = None) -> bytes:
    """A PNG file; with `colours` (2 to 256) reduced to a palette, about a third of the size."""
    if colours:
        image = image.convert("RGB").quantize(colours)
    return _saved(image, "PNG", optimize=True)


def jpeg_bytes(image: Image.Image, *, quality: int = 85) -> bytes:
    """A JPEG file, for photos larger than a stamp."""
    return _saved(image.convert("RGB"), "JPEG", quality=quality, optimize=True)


def webp_bytes(image: Image.Image, side: int, *, quality: int = 80) -> bytes:
    """A WebP file of at most side x side pixels: the smallest, for hundreds of thumbnails in a table."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _saved(small, "WEBP", quality=quality)


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    """A PNG, JPEG, WebP or SVG file as a `data:` link, which a page shows without any request."""
    kinds = {
        b"\x89PNG": "image/png",
        b"\xff\xd8\xff": "image/jpeg",
        b"<svg": "image/svg+xml",
        b"RIFF": "image/webp",
    }
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), None)
    if kind is None:
        raise ValueError("a data link is made from PNG, JPEG, WebP or SVG bytes only")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def web_uri(image: Image.Image, side: int = 256) -> str:
    """An image of any size as a `data:` link of at most side x side pixels: PNG for stamps, JPEG above 96 pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_uri(png_bytes(small) if max(small.size) <= 96 else jpeg_bytes(small, quality=88))


# Grids


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The whole image, scaled to fit a white square of side x side pixels."""
    return ImageOps.pad(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC, color="white")


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str] = (), *, columns: int = 8, cell: int = 96
) -> Image.Image:
    """Images in rows, each in a cell of that many pixels, with one line of caption below where captions are given."""
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    columns = min(columns, len(images))
    height = cell + (_CAPTION + 6 if captions else 0)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (cell + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white")
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        corner = (_GAP + column * (cell + _GAP), _GAP + row * (height + _GAP))
        sheet.paste(thumbnail(image, cell), corner)
        if captions:
            _write(sheet, captions[position], (corner[0], corner[1] + cell + 2), cell)
    return sheet


def comparison_grid(
    rows: Sequence[Sequence[Image.Image | None]], headings: Sequence[str], *, cell: int = 112
) -> Image.Image:
    """One row a product and seed, one column a condition, under headings; None leaves a cell empty."""
    if not rows or any(len(row) != len(headings) for row in rows):
        raise ValueError("a comparison grid needs at least one row, and in each row one image for every heading")
    top = _GAP + _CAPTION + 6
    sheet = Image.new("RGB", (len(headings) * (cell + _GAP) + _GAP, top + len(rows) * (cell + _GAP)), "white")
    for column, heading in enumerate(headings):
        left = _GAP + column * (cell + _GAP)
        _write(sheet, heading, (left, _GAP), cell)
        for position, row in enumerate(rows):
            image, corner = row[column], (left, top + position * (cell + _GAP))
            if image is not None:
                sheet.paste(thumbnail(image, cell), corner)
            else:
                ImageDraw.Draw(sheet).rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), outline=FAINT)
    return sheet


def _write(sheet: Image.Image, text: str, corner: tuple[int, int], width: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_CAPTION)
    text = " ".join(text.split())
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "…", font) > width:
            text = text[:-1]
        text = text.rstrip() + "…"
    draw.text(corner, text, INK, font)


# Charts


LABEL = 9
"""Points of the text on a chart."""

CHART_INCHES = 5.2
"""Width of a chart: 624 pixels, which Dagster's table of metadata has room for on a laptop."""


def loss_curve(log: pa.Table) -> bytes:
    """The table `training_log` as PNG: training loss, and the loss on held-out photos where it was measured."""
    figure, axes = _chart(CHART_INCHES, 2.8)
    columns = log.select(["step", "loss", "held_out_loss"]).to_pydict()
    held_out = [
        (step, loss) for step, loss in zip(columns["step"], columns["held_out_loss"], strict=True) if loss is not None
    ]
    _line(axes, columns["step"], columns["loss"], "training", GREY, marker="")
    if held_out:
        _line(axes, [step for step, _ in held_out], [loss for _, loss in held_out], "held out", BLUE, marker="o")
    axes.set_xlabel("optimizer step", fontsize=LABEL)
    axes.set_ylabel("mean squared error", fontsize=LABEL)
    axes.grid(axis="y", color=FAINT)
    axes.legend(frameon=False, loc="upper right")
    return _png(figure)


def interval_chart(
    rows: Sequence[tuple[str, Interval]], *, unit: str = "cosine similarity", reference: float | None = None
) -> bytes:
    """One dot with its interval for each label, from top to bottom, as PNG; `reference` draws a line (0 for gains)."""
    figure, axes = _chart(CHART_INCHES, 0.9 + 0.34 * len(rows))
    for place, (_, interval) in enumerate(rows):
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=BLUE, linewidth=2, solid_capstyle="round")
        axes.plot([interval.mean], [place], "o", color=BLUE, markersize=6)
    if reference is not None:
        axes.axvline(reference, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [_plain(f"{label}  (n = {interval.n})") for label, interval in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{unit}, mean with 95 % interval", fontsize=LABEL)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT)
    return _png(figure)


def _chart(width: float, height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=LABEL, length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _line(
    axes: "Axes", steps: Sequence[float], losses: Sequence[float], label: str, colour: str, *, marker: str
) -> None:
    axes.plot(steps, losses, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


# Dagster's asset page


def sparkline_svg(values: Sequence[float]) -> str:
    """A curve as a `data:` link of at most 600 characters, which Dagster draws in line with other Markdown."""
    heights = np.asarray(values, np.float64)
    heights = heights[np.linspace(0, len(heights) - 1, min(len(heights), 32)).round().astype(int)]
    spread = float(np.ptp(heights)) or 1.0
    across = np.linspace(2, 98, len(heights))
    points = " ".join(
        f"{x:.0f},{22 - 20 * y:.0f}" for x, y in zip(across, (heights - heights.min()) / spread, strict=True)
    )
    return data_uri(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="24"><polyline points="{points}" fill="none" '
        f'stroke="{BLUE}"/></svg>'.encode()
    )


def markdown_image(link: str, alt: str = "") -> Markdown:
    """An image in Markdown, from a `data:` link."""
    return Markdown(f"![{markdown_text(alt)}]({link})")


def markdown_text(value: object) -> str:
    """Text from outside, so that Markdown shows it as it is, on one line; numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else " ".join(str(value).split())
    text = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(rows: Sequence[Mapping[str, object]]) -> Markdown:
    """Rows with the same keys as a Markdown table; cells are escaped unless they are `Markdown` already."""
    if not rows:
        return Markdown("")
    header = list(rows[0])
    lines = [[markdown_text(key) for key in header], ["---"] * len(header)]
    lines += [[_cell(row[key]) for key in header] for row in rows]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(value: object) -> str:
    return value if isinstance(value, Markdown) else markdown_text(value)
