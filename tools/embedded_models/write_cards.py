"""Write the model cards from measured figures and training logs, so that no number is typed by hand."""

import argparse
import json
from pathlib import Path

COMMON_DATA = """## Data

8,362 product photos of the public "Fashion Product Images" data set (images and `styles.csv`), shrunk to 64 × 64
pixels. Weights trained on them are shipped here; the photos are not redistributed: see the data set's own page for its
licence before you redistribute any. {held_out} photos are the catalog's `test` split
(`fashion_pipeline/core/catalog/splits.py`, keyed by product id) and were never trained on, nor were their
near-duplicates. Photos with usage Ethnic: {ethnic}. Fashion-MNIST: never seen.
"""

RECIPE = """## Recipe

`tools/embedded_models/` has every script, the commands in order, and what was changed during training. {text}
Seeds: each step draws from the SHA-256 of the model's name and the step's number; weights start from that of the name.
Trained on two CPU cores shared with other work, bf16 autocast, AdamW, warm-up and cosine decay, averaged weights.
"""

ENCODER = """# Embedded encoder

A small `CLIPModel` (images of 64 pixels, 77 tokens, embeddings of 192) with its processor: the stand-in for
FashionCLIP in the `embedded` profile. `../vocabulary.toml` lists what it was taught; ask it nothing else.

```python
from transformers import CLIPModel, CLIPProcessor

model, processor = CLIPModel.from_pretrained(folder).float(), CLIPProcessor.from_pretrained(folder)
```

{data}
{recipe}
{measured}
## Limits

Trained on the data set on which it is measured (other photos of it), so its figures say nothing about other photos.
The held-out photos were looked at once during training, at step 600 (garment weighted F1 0.57); the garment question's
weight and the number of steps were changed after that, so the figures are not quite blind. FashionCLIP 2.0's published
0.73 weighted F1 is for a model that never trained on this data set. It knows white-ground catalog photos, English, and
the words of its vocabulary; audience and season follow this shop's habits. Sentences are read mostly as sets of words.
Not for any decision about people.
"""

JUDGE = """# Embedded judge

A small `ResNetForImageClassification`, convolutional and trained on labels alone: another family than the encoder.
It never chooses anything; it evaluates. `AutoModel` gives features, `AutoModelForImageClassification` a head over
`garment:…` and `colour:…` labels: take a softmax within each of the two groups.

{data}
{recipe}
{measured}
## Limits

Knows the garments and colours of one shop. Its labels are those of the data set, faults included: one photo has one
colour, and Tops, Tshirts and Shirts overlap. Not for any decision about people.
"""

GENERATOR = """# Embedded generator

A complete `StableDiffusionPipeline` of 64 × 64 pixels: AutoencoderKL (factor 4, 4 channels), UNet2DConditionModel on
16 × 16 latents, CLIPTextModel, CLIPTokenizer, DPM-Solver++. Good from about 15 steps,
guidance {guidance:g} or thereabouts.

```python
import torch
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
image = pipeline("a photo of a black handbag", num_inference_steps=20, guidance_scale={guidance:g}).images[0]
```

![{garments} garments, one a row; four colours, four seeds each](contact_sheet.png)

One garment a row ({rows}), four seeds each of {columns}. No image was picked. All are generated.

{data}
{recipe}
{measured}
## Limits

Weak spots, by the judge's reading: sweaters pass for tops or shirts, casual shoes for sports shoes, grey for other
colours; the table above counts them.
64 pixels; faces, prints and lettering are suggested, not drawn. It knows only what one shop photographed on white
ground, and by design no ethnic wear at all. Rare garments and colours (see `../vocabulary.toml`) are weak, as are rare
pairs of them. Has no safety checker: it has seen product photos only. Not a likeness of any person.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the training logs")
    parser.add_argument(
        "--models", type=Path, required=True, help="folder with metrics.json, generator/, encoder/, judge/"
    )
    args = parser.parse_args()
    metrics = json.loads((args.models / "metrics.json").read_text())
    for name, text in cards(metrics, args.work).items():
        (args.models / name / "README.md").write_text(text)


def cards(metrics: dict, work: Path) -> dict[str, str]:
    """The text of each model's card."""
    held_out = metrics["held_out_photos"]
    seen, unseen = (COMMON_DATA.format(held_out=held_out, ethnic=word) for word in ("seen", "never seen"))
    encoder = "Contrast over every caption that is true of a photo, and cross-entropy over one question a facet. "
    judge = "Cross-entropy over garments plus 0.7 × that over colours, label smoothing 0.05; a seventh in grey. "
    generator = "Noise prediction, min-SNR weight 5, a tenth of captions dropped; autoencoder: L1, opponent colours. "
    rows = metrics["generator"]["garment_found_by_garment"]
    columns = metrics["generator"]["colour_found_by_colour"]
    return {
        "encoder": ENCODER.format(
            data=seen,
            recipe=RECIPE.format(text=encoder + seen_samples(work, "encoder")),
            measured=measured(metrics["date"], metrics["encoder"]),
        ),
        "judge": JUDGE.format(
            data=seen,
            recipe=RECIPE.format(text=judge + seen_samples(work, "judge")),
            measured=measured(metrics["date"], metrics["judge"]),
        ),
        "generator": GENERATOR.format(
            data=unseen,
            measured=measured(metrics["date"], metrics["generator"]),
            recipe=RECIPE.format(
                text=generator + seen_samples(work, "autoencoder") + " " + seen_samples(work, "denoiser")
            ),
            guidance=metrics["generator"]["guidance"],
            garments=len(rows),
            rows=", ".join(rows),
            columns=", ".join(columns),
        ),
    }


def seen_samples(work: Path, name: str) -> str:
    """ "encoder: 1,500 steps, last logged loss 1.23." from its log."""
    last = json.loads((work / f"{name}.jsonl").read_text().splitlines()[-1])
    return f"{name.capitalize()}: {last['step']:,} steps, last loss {last['loss']:.3f}."


def measured(date: str, figures: dict) -> str:
    """A table of all figures, those by name in a line each."""
    lines = [
        "## Measured",
        "",
        f"On {date}, from the exported folder with stock libraries (`evaluate_models.py`).",
        "",
        "| figure | value |",
        "| --- | --- |",
    ]
    for name, value in figures.items():
        shown = ", ".join(f"{key} {rate:.0%}" for key, rate in value.items()) if isinstance(value, dict) else value
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
