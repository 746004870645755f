"""Drawing: images a second against one pipeline call an image, and how much of the time is not the model.

    python -m benchmarks.generation [--images 64] [--runs 3]

Both draw the same prompts with the same seeds, steps, guidance and size with the embedded generator. The peer is stock
diffusers as people write it: one `StableDiffusionPipeline` call for each photo, in the pipeline's own precision. Runs
take turns, and the ratio is the median of the pairs. The time outside the UNet and the autoencoder is measured in a run
of its own by wrapping both.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.common import timed
from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.core.prompts.search import seed_for
from fashion_pipeline.ml.diffusion import Generator
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.models import Models

GARMENTS = ("coat", "handbag", "dress", "watch", "t-shirt", "sneaker", "kurta", "wallet")
COLOURS = ("black", "blue", "white", "grey", "red", "green")


def main(images: int, runs: int) -> None:
    """Take turns, then print both speeds, their ratio, and the share of time outside the model."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        models = Models("embedded", machine=Path(folder) / "machine")
        requests = _requests(models, images)
        peer = StableDiffusionPipeline.from_pretrained(
            PACKAGE / "embedded" / "generator", use_safetensors=True, safety_checker=None
        )
        peer.set_progress_bar_config(disable=True)
        with models.generator() as generator:
            device = models.pick()
            _ours(generator, requests[: generator.batch_size])
            _peer(peer, requests[:2])
            pairs = [
                (timed(lambda: _ours(generator, requests)), timed(lambda: _peer(peer, requests[: images // 4])) * 4)
                for _ in range(runs)
            ]
            outside = _outside(generator, requests)
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        f"{images} images of {requests[0].width} pixels, {requests[0].steps} steps, {device.name}: ours "
        f"{images / ours:.1f} images/s ({device.precision}, batches of {generator.batch_size}), one call an image "
        f"{images / theirs:.1f} (fp32), ratio {ratio:.2f} (median of {runs} pairs); {outside:.1%} of our time outside "
        "UNet and autoencoder"
    )


def _requests(models: Models, images: int) -> list[Request]:
    """As many prompts as a search has, each for several products."""
    drawing = models.profile.generation
    prompts = [f"a photo of a {colour} {garment}" for garment in GARMENTS for colour in COLOURS]
    size = drawing.image_size
    return [
        Request(prompts[i % len(prompts)], "", seed_for(f"p{i}", 0), drawing.steps, drawing.guidance, size, size)
        for i in range(images)
    ]


def _ours(generator: Generator, requests: list[Request]) -> None:
    for _ in generator.draw(requests):
        pass


def _peer(pipeline: Any, requests: list[Request]) -> None:
    """A quarter of the images is timed, since each takes as long as any other."""
    for request in requests:
        pipeline(
            request.prompt,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            width=request.width,
            height=request.height,
        )


def _outside(generator: Generator, requests: list[Request]) -> float:
    """The share of the time that is spent neither in the UNet nor in the autoencoder."""
    spent = [0.0]
    pipeline: Any = generator._pipeline

    def measured(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = call(*args, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent[0] += time.perf_counter() - began
            return result

        return timed

    forward, decode = pipeline.unet.forward, pipeline.vae.decode
    pipeline.unet.forward, pipeline.vae.decode = measured(forward), measured(decode)
    try:
        whole = timed(lambda: _ours(generator, requests))
    finally:
        pipeline.unet.forward, pipeline.vae.decode = forward, decode
    return 1 - spent[0] / whole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    main(given.images, given.runs)
