"""Reading what runs found, and drawing with what was published."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_pipeline.api.common import Tell, open_models, open_store, warn
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.core.names import PIPELINE, REPORT, REPORT_PAGE
from fashion_pipeline.core.rows import Split
from fashion_pipeline.core.texts import ENGLISH, speaking
from fashion_pipeline.core.training.recipe import STRONGEST

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.PngImagePlugin import PngInfo

    from fashion_pipeline.core.evaluation.report import EvaluationReport
    from fashion_pipeline.core.prompts.formats import Candidate
    from fashion_pipeline.core.prompts.requests import Request
    from fashion_pipeline.stages.standing.outcome import Outcome
    from fashion_pipeline.store.records import Record
    from fashion_pipeline.store.store import Store


def compare(style: str) -> dict[str, Any]:
    """The stored comparison of original and specialised model, or the prompt report where nothing was trained yet."""
    store, style = open_store(), style_slug(style)
    evaluation = store.records.newest("evaluation", style)
    return evaluation.json(REPORT) if evaluation else report(style)


def report(style: str) -> dict[str, Any]:
    """The newest report of a style as JSON. Raises StorageError for a style that never ran."""
    return _newest_report(style).json(REPORT)


def prompts(style: str, most: int = 10) -> list[dict[str, Any]]:
    """The best prompts of a style's newest search: those that were drawn for photos, then those only looked at.

    Each with strategy, negative prompt, guidance (none: as the profile says), its mean similarity on search photos
    with the ends of a 95 % interval (none for one only looked at), and the images that this rests on. Raises
    StorageError for a style whose prompts were never searched.
    """
    from fashion_pipeline.stages.prompts.candidates import best_prompts

    return best_prompts(open_store(), style_slug(style), most)


def outcome(style: str) -> "Outcome":
    """What was decided about a style's newest run, which version is in use, and what to do next.

    Raises StorageError for a style that never ran.
    """
    from fashion_pipeline.stages.standing.outcome import outcome_of

    return outcome_of(open_store(), style_slug(style), _newest_report(style))


def report_page(style: str | None = None, language: str = ENGLISH) -> Path:
    """The HTML page of a style's newest report, or of all styles, in a language of `core.texts.languages`.

    Raises StorageError for a style that never ran, ValueError for an unknown language.
    """
    from fashion_pipeline.stages.pages.pages import index_page, page_of

    with speaking(language):
        if style is None:
            return index_page(open_store(), open_models())
        return page_of(open_store(), open_models(), _newest_report(style))


def evaluate(
    style: str, weights: str | Path, products: int = 128, tell: Tell | None = None
) -> tuple[dict[str, Any], Path]:
    """Evaluate a LoRA file that was trained elsewhere, in diffusers' or kohya's format, on a style that was described.

    Returns the report, as `compare` has it, and the page. `tell`, or the standard error stream, hears of the progress.
    Raises ModelError for a file that does not fit the profile's generator, StorageError for a style that was not
    described yet.
    """
    path = Path(weights).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {path}: name a LoRA as .safetensors")
    from fashion_pipeline.stages.evaluation.foreign_weights import evaluate_weights

    report = tell or (lambda text: print(text, file=sys.stderr))
    judged = evaluate_weights(open_store(), open_models(), style_slug(style), path, products=products, report=report)
    return judged.report.as_json(), judged.folder / REPORT_PAGE


def generate(
    style: str,
    prompt: str | None = None,
    n: int = 4,
    out: str | Path = "generated",
    seed: int = 0,
    tell: Tell | None = None,
    *,
    negative_prompt: str | None = None,
    guidance: float | None = None,
    version: str | None = None,
    strength: float = 1.0,
) -> list[Path]:
    """Draw n images with a style's model into a folder; seeds count up from `seed`. A file that is there is kept.

    Without a prompt it is the recommended one, with its own negative prompt and guidance; without a `version` the one
    in use. A version may be one that was never published: its name is the key of its training. `strength` is the share
    of what training changed, above 0 up to 2; 1 is what was evaluated. Each PNG tells how it was drawn. `tell`, or the
    standard error stream, hears of words that the text encoder cannot know. Raises StorageError where there is no
    model, ModelError where a strength is asked for and the profile has another base, ValueError for less than one
    image, such a strength, or a prompt longer than the text encoder reads, OSError where the folder cannot be made. A
    folder into which nothing is drawn is not left behind.
    """
    from fashion_pipeline.core.prompts.requests import Request
    from fashion_pipeline.stages.drawing.base import require_base, unknown_words

    if n < 1:
        raise ValueError(f"n is {n}: ask for 1 image or more")
    if not 0 < strength <= STRONGEST:
        raise ValueError(
            f"strength is {strength:g}: choose one above 0, which would be the original, up to {STRONGEST}"
        )
    style = style_slug(style)
    name, folder, recommended = _model_of(style, version)
    if prompt is None:
        if recommended is None:
            raise ValueError(f"version {name} of {style!r} has no report that recommends a prompt: give one")
        prompt = recommended.prompt
        negative_prompt = recommended.negative_prompt if negative_prompt is None else negative_prompt
        guidance = recommended.guidance if guidance is None else guidance
    out, models = Path(out), open_models()
    if strength != 1 and (training := open_store().records.find("training", style, name)):
        require_base(models, training.made_of, f"version {name} of {style!r}")
    g = models.profile.generation
    scale, unwanted = g.guidance if guidance is None else guidance, negative_prompt or ""
    requests = [Request(prompt, unwanted, seed + k, g.steps, scale, g.image_size, g.image_size) for k in range(n)]
    paths: dict[int, Path] = {}
    model = f"{style} {name}" if strength == 1 else f"{style} {name}, strength {strength:g}"
    with _folder_for(out):
        if unknown := unknown_words(models, prompt, folder):
            (tell or warn)(
                f"the text encoder does not know {', '.join(unknown)}, so the images hardly depend on it: say it in "
                "English"
            )
        with models.generator(folder, strength=strength) as generator:
            for drawn in generator.draw(requests):
                request = requests[drawn.index]
                paths[drawn.index] = _free(out, f"{style}-{request.seed}")
                drawn.image.save(paths[drawn.index], pnginfo=_how(request, model))
    return [paths[index] for index in sorted(paths)]


def export_dataset(style: str, trainer: str, out: str | Path, tell: Tell | None = None) -> int:
    """Write a style's newest curated images and captions into a new folder, with our knobs in another trainer's words.

    `trainer` is kohya (sd-scripts), diffusers (its script of LoRA on texts and images) or imagefolder (no script);
    returns the number of images. Raises ValueError for another trainer, one that cannot train such a recipe on such a
    base, or a folder that is not empty; StorageError where nothing was curated yet.
    """
    from fashion_pipeline.stages.training.handing_over import export_dataset

    return export_dataset(open_store(), open_models(), style_slug(style), trainer, Path(out), tell or warn)


def _model_of(style: str, version: str | None) -> tuple[str, Path, "Candidate | None"]:
    """Name, folder and recommended prompt of a version: the one that is named, published or not, or the one in use."""
    from fashion_pipeline.stages.standing.outcome import evaluation_of
    from fashion_pipeline.store.errors import StorageError

    store = open_store()
    name = version or store.versions.pointer(style).version
    if name is None:
        raise StorageError(f"no model of style {style!r} is published: {_why_not_published(style)}")
    published = store.versions.promoted_or(style, name) if _is_version(store, style, name) else None
    if published is not None:
        try:
            return name, published, store.versions.report(style, name).recommended()
        except StorageError:
            return name, published, None
    model = store.records.find("model", style, name)
    if model is None:
        raise StorageError(f"style {style!r} has no version {name!r}, and no model of that training")
    evaluation = evaluation_of(store, style, name)
    return name, model.path(PIPELINE), evaluation.report().recommended() if evaluation else None


def _is_version(store: "Store", style: str, name: str) -> bool:
    return any(folder.name == name for folder in store.versions.all(style))


def _free(folder: Path, stem: str) -> Path:
    """A file that is not there yet."""
    names = (f"{stem}.png", *(f"{stem}-{number}.png" for number in range(2, 100_000)))
    return next(folder / name for name in names if not (folder / name).exists())


def _how(request: "Request", model: str) -> "PngInfo":
    """How an image was drawn, as text chunks of its PNG."""
    from PIL.PngImagePlugin import PngInfo

    values = {"prompt": request.prompt, "negative_prompt": request.negative_prompt, "seed": request.seed}
    values |= {"guidance_scale": request.guidance, "steps": request.steps, "model": model}
    info = PngInfo()
    for name, value in values.items():
        info.add_itxt(name, str(value))
    return info


@contextmanager
def _folder_for(out: Path) -> Iterator[None]:
    """A folder that is there inside the block, and goes again if nothing was put into it."""
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if fresh and not any(out.iterdir()):
            out.rmdir()


def styles(tell: Tell | None = None) -> list[dict[str, Any]]:
    """Every known style with its photos per split, its rejects, best prompt, verdict and published version.

    What is damaged is None, and `tell` hears of it, or the standard error stream.
    """
    store = open_store()
    return [_style_row(store, style, tell or warn) for style in store.sources.styles()]


def style(name: str, tell: Tell | None = None) -> dict[str, Any]:
    """One style: photos per split, source, what was chosen for its runs, and what was decided.

    Raises StorageError for a style that nobody registered; what is damaged is None, and `tell` hears of it.
    """
    from fashion_pipeline.stages.pages.reports import newest_report
    from fashion_pipeline.stages.standing.outcome import outcome_of

    store, name = open_store(), style_slug(name)
    row = _style_row(store, name, tell or warn)
    about = {"source": store.sources.source(name).path, "chosen": store.sources.config(name)}
    newest = newest_report(store, name)
    if newest is None:
        return row | about | {"decision": None, "next": f"fashion-pipeline run --style {name}"}
    outcome = outcome_of(store, name, newest)
    return (
        row
        | about
        | {
            "decision": outcome.headline,
            "reason": outcome.reason,
            "state": outcome.state,
            "waits for approval": outcome.waiting,
            "model": str(outcome.folder) if outcome.folder else None,
            "prompt": outcome.prompt.prompt,
            "next": outcome.next,
        }
    )


def sql(query: str, tell: Tell | None = None) -> "pa.Table":
    """A DuckDB query over all tables, each with the columns `style` and `record`. Raises duckdb.Error.

    Damaged files are left out, and `tell` hears of each, or the standard error stream.

    `<table>_history` has the rows of all runs, `<table>` those of each style's newest. Nothing outside the data root
    can be read, and nothing written.
    """
    return open_store().sql(query, tell or warn)


def _why_not_published(style: str) -> str:
    evaluation = open_store().records.newest("evaluation", style)
    if evaluation is None:
        return f"run --mode full --style {style} first"
    decision = evaluation.report().told()
    return f"{decision.headline} {decision.reason}" if decision else f"run --mode full --style {style} first"


def _newest_report(style: str) -> "Record":
    from fashion_pipeline.stages.pages.reports import newest_report
    from fashion_pipeline.store.errors import StorageError

    store, style = open_store(), style_slug(style)
    newest = newest_report(store, style)
    if newest is None:
        names = ", ".join(store.sources.styles()) or "none yet"
        raise StorageError(f"style {style!r} has no report (known styles: {names}): run it first")
    return newest


def _style_row(store: "Store", style: str, tell: Tell) -> dict[str, Any]:
    """What is known of a style; None where it is not there, or damaged."""

    def read(what: Callable[[], Any]) -> Any:
        from fashion_pipeline.store.errors import StorageError

        try:
            return what()
        except StorageError as error:
            tell(str(error))
            return None

    row: dict[str, Any] = {"style": style}
    row |= read(lambda: _photo_counts(store, style)) or dict.fromkeys(
        ("photos", *(split.value for split in Split), "rejects")
    )
    prompts = read(lambda: _newest(store, "prompt_report", style))
    row["best prompt"] = prompts.optimized_prompt if prompts else None
    evaluated = read(lambda: _newest(store, "evaluation", style))
    row["verdict"] = evaluated.verdict if evaluated else None
    champion = read(lambda: store.versions.in_use(style))
    row["published"] = champion.name if champion else None
    return row


def _photo_counts(store: "Store", style: str) -> dict[str, int]:
    catalog = store.records.newest("catalog", style)
    splits: Sequence[str] = catalog.table("images")["split"].to_pylist() if catalog else []
    counted = {split.value: splits.count(split) for split in Split}
    return {"photos": len(splits), **counted, "rejects": catalog.table("rejects").num_rows if catalog else 0}


def _newest(store: "Store", kind: str, style: str) -> "EvaluationReport | None":
    record = store.records.newest(kind, style)
    return record.report() if record else None
