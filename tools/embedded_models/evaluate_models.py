"""Measure the exported folders with stock libraries only, on held-out photos and on a grid of generated images."""

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPModel, CLIPProcessor

from tools.embedded_models.captions import FACETS, RESERVED, load_vocabulary, question, with_article
from tools.embedded_models.photos import Photos, held_out, load_photos
from tools.embedded_models.training import generator_for

RARE = 20
GRID_GARMENTS, GRID_COLOURS, GRID_SEEDS = 12, 4, 4
STEPS, GUIDANCE = 20, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="the file that prepare_photos.py wrote")
    parser.add_argument("--photos", type=Path, required=True, help="folder with styles.csv and images/{id}.jpg")
    parser.add_argument("--models", type=Path, required=True, help="folder with generator/, encoder/ and judge/")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=Path, help="folder of another generator: measure it alone, and write nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    catalog = load_photos(args.cache)
    if args.only:
        print(json.dumps(evaluate_generator(args.only, args.models / "judge", catalog), indent=2))
        return
    metrics = {
        "date": datetime.now(UTC).date().isoformat(),
        "held_out_photos": int(held_out(catalog).sum()),
        "encoder": evaluate_encoder(args.models / "encoder", args.photos, catalog),
        "judge": evaluate_judge(args.models / "judge", args.photos, catalog),
        "generator": evaluate_generator(args.models / "generator", args.models / "judge", catalog),
    }
    (args.models / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics, indent=2))


def read_photos(folder: Path, ids: np.ndarray) -> list[Image.Image]:
    """The photos as they are on disk, in RGB."""
    return [Image.open(folder / "images" / f"{key}.jpg").convert("RGB") for key in ids]


def frequent_garments(catalog: Photos) -> list[str]:
    """Article types of 20 photos or more in the whole catalog that the vocabulary knows, most frequent first."""
    counts = Counter(catalog.columns["articleType"].tolist())
    known = load_vocabulary()["garment"]
    return sorted(
        (name for name in counts if counts[name] >= RARE and name in known), key=lambda name: (-counts[name], name)
    )


def load_encoder(folder: Path) -> tuple[CLIPModel, CLIPProcessor]:
    return CLIPModel.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32
    ).eval(), CLIPProcessor.from_pretrained(folder)


@torch.no_grad()
def embed_images(model: CLIPModel, processor: CLIPProcessor, images: list[Image.Image]) -> Tensor:
    """(n, d) unit rows."""
    parts = [
        _vectors(model.get_image_features(**processor(images=images[start : start + 64], return_tensors="pt")))
        for start in range(0, len(images), 64)
    ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def embed_texts(model: CLIPModel, processor: CLIPProcessor, texts: list[str]) -> Tensor:
    """(n, d) unit rows."""
    tokens = processor(text=texts, return_tensors="pt", padding=True, truncation=True)
    return torch.nn.functional.normalize(_vectors(model.get_text_features(**tokens)), dim=1)


def _vectors(output: object) -> Tensor:
    """The projected embeddings, which transformers 5 wraps and earlier versions do not."""
    return output if isinstance(output, Tensor) else output.pooler_output


def zero_shot(model: CLIPModel, processor: CLIPProcessor, images: Tensor, facet: str, values: list[str]) -> list[str]:
    """The value whose first phrase, averaged over the facet's templates, is closest to each image."""
    vocabulary = load_vocabulary()
    templates = vocabulary["templates"][facet]
    asked = [
        embed_texts(
            model, processor, [question(vocabulary, facet, vocabulary[facet][value][0], t) for t in templates]
        ).mean(0)
        for value in values
    ]
    return [values[index] for index in (images @ torch.stack(asked).T).argmax(1).tolist()]


def evaluate_encoder(folder: Path, photos: Path, catalog: Photos) -> dict[str, float | int]:
    """Zero-shot answers on the held-out photos, as they are and, for garments, in grey."""
    model, processor = load_encoder(folder)
    test = catalog.where(held_out(catalog))
    pictures = read_photos(photos, test.ids)
    images = embed_images(model, processor, pictures)
    result: dict[str, float | int] = {}
    for facet, column in FACETS.items():
        values = frequent_garments(catalog) if facet == "garment" else list(load_vocabulary()[facet])
        scored = np.isin(test.columns[column], values)
        truth = test.columns[column][scored].tolist()
        given = zero_shot(model, processor, images[torch.from_numpy(scored)], facet, values)
        result |= {f"{facet}_n": len(truth), f"{facet}_values": len(values)} | _scores(facet, truth, given)
    kept = np.isin(test.columns["articleType"], frequent_garments(catalog))
    grey = [picture.convert("L").convert("RGB") for picture, keep in zip(pictures, kept, strict=True) if keep]
    given = zero_shot(model, processor, embed_images(model, processor, grey), "garment", frequent_garments(catalog))
    return result | _scores("garment_in_grey", test.columns["articleType"][kept].tolist(), given)


def _scores(name: str, truth: list[str], given: list[str]) -> dict[str, float]:
    return {
        f"{name}_top1": round(float(accuracy_score(truth, given)), 4),
        f"{name}_weighted_f1": round(float(f1_score(truth, given, average="weighted", zero_division=0)), 4),
    }


@torch.no_grad()
def judge_labels(folder: Path, images: list[Image.Image]) -> dict[str, list[str]]:
    """The judge's answer for garment and for colour, over all values it knows."""
    model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    logits = torch.cat(
        [
            model(**processor(images=images[start : start + 64], return_tensors="pt")).logits
            for start in range(0, len(images), 64)
        ]
    )
    labels = [model.config.id2label[index] for index in range(logits.shape[1])]
    answers = {}
    for facet in ("garment", "colour"):
        places = [index for index, label in enumerate(labels) if label.startswith(facet + ":")]
        answers[facet] = [labels[places[index]].split(":", 1)[1] for index in logits[:, places].argmax(1).tolist()]
    return answers


def evaluate_judge(folder: Path, photos: Path, catalog: Photos) -> dict[str, float | int]:
    """Garment (types of 20 photos or more) and colour on the held-out photos."""
    test = catalog.where(held_out(catalog))
    answers = judge_labels(folder, read_photos(photos, test.ids))
    result: dict[str, float | int] = {}
    for facet, values in (("garment", frequent_garments(catalog)), ("colour", list(load_vocabulary()["colour"]))):
        truth = test.columns[FACETS[facet]]
        scored = np.isin(truth, values)
        result |= {f"{facet}_n": int(scored.sum())}
        result |= _scores(facet, truth[scored].tolist(), np.array(answers[facet])[scored].tolist())
    grid = np.isin(test.columns["articleType"], grid_garments(catalog)) & np.isin(
        test.columns["baseColour"], grid_colours(catalog)
    )
    for facet in ("garment", "colour"):
        right = np.array(answers[facet])[grid] == test.columns[FACETS[facet]][grid]
        result |= {f"{facet}_top1_on_grid_values": round(float(right.mean()), 4), "grid_values_n": int(grid.sum())}
    return result


def grid_garments(catalog: Photos) -> list[str]:
    """The rule fixed in advance: the 12 most frequent article types that are not ethnic."""
    return [name for name in frequent_garments(catalog) if name not in RESERVED["garment"]][:GRID_GARMENTS]


def grid_colours(catalog: Photos) -> list[str]:
    """The 4 most frequent colours."""
    counts = Counter(catalog.columns["baseColour"].tolist())
    return sorted(counts, key=lambda name: (-counts[name], name))[:GRID_COLOURS]


def grid_prompt(garment: str, colour: str) -> str:
    """ "a photo of a black t-shirt"."""
    vocabulary = load_vocabulary()
    return f"a photo of {with_article(vocabulary['colour'][colour][0] + ' ' + vocabulary['garment'][garment][0])}"


def draw(folder: Path, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
    """One image a prompt, each from its own generator, in batches of 16."""
    index = json.loads((folder / "model_index.json").read_text())
    missing = {name: None for name, value in index.items() if value == [None, None]}  # diffusers wants to be told
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32, **missing)
    pipeline.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), 16):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + 16]]
        images += pipeline(
            prompts[start : start + 16], num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators
        ).images
    return images


def draw_grid(folder: Path, catalog: Photos) -> tuple[list[tuple[str, str]], list[Image.Image]]:
    """(garment, colour) and image for each of garments × colours × seeds; seeds are derived from the prompt."""
    cells = [
        (garment, colour, seed)
        for garment in grid_garments(catalog)
        for colour in grid_colours(catalog)
        for seed in range(GRID_SEEDS)
    ]
    prompts = [grid_prompt(garment, colour) for garment, colour, _ in cells]
    seeds = [
        int(generator_for("grid", prompt, seed).integers(2**31))
        for prompt, (_, _, seed) in zip(prompts, cells, strict=True)
    ]
    return [(garment, colour) for garment, colour, _ in cells], draw(folder, prompts, seeds)


def contact_sheet(path: Path, images: list[Image.Image], columns: int = 16) -> None:
    """Write 64-pixel images as one PNG: a garment a row, four seeds of each colour side by side."""
    sheet = Image.new("RGB", (columns * 66, -(-len(images) // columns) * 66), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * 66 + 1, index // columns * 66 + 1))
    sheet.save(path)


def evaluate_generator(folder: Path, judge: Path, catalog: Photos) -> dict[str, object]:
    """How often the judge finds the garment and the colour asked for; writes the contact sheet beside the model."""
    asked, images = draw_grid(folder, catalog)
    contact_sheet(folder / "contact_sheet.png", images)
    answers = judge_labels(judge, images)
    garment = np.array([answer == wanted for answer, (wanted, _) in zip(answers["garment"], asked, strict=True)])
    colour = np.array([answer == wanted for answer, (_, wanted) in zip(answers["colour"], asked, strict=True)])
    return {
        "n": len(images),
        "steps": STEPS,
        "guidance": GUIDANCE,
        "garment_found": round(float(garment.mean()), 4),
        "colour_found": round(float(colour.mean()), 4),
        "garment_found_by_garment": _rates([garment_asked for garment_asked, _ in asked], garment),
        "colour_found_by_colour": _rates([colour_asked for _, colour_asked in asked], colour),
    }


def _rates(names: list[str], right: np.ndarray) -> dict[str, float]:
    return {name: round(float(right[[other == name for other in names]].mean()), 3) for name in dict.fromkeys(names)}


if __name__ == "__main__":
    main()
