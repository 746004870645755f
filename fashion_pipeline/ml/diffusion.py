"""Drawing images so that an image depends on its request alone, not on its batch."""

import gc
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image

from fashion_pipeline.core.prompts.requests import GeneratorIdentity, Request, alike
from fashion_pipeline.ml.adapters.merging import merge_adapter
from fashion_pipeline.ml.devices import Device, free_memory, out_of_memory
from fashion_pipeline.ml.families import Family, Texts, family_of
from fashion_pipeline.ml.files import file_hash, fingerprint
from fashion_pipeline.ml.sources import find_pipeline

REMEMBERED = 1 << 30
"""Bytes of embedded texts that are kept; one takes from 60 kB (Stable Diffusion) to 16 MB (FLUX.2)."""

_EXACT = {"timestep", "time_ids"}
"""Numbers that half precision would round: 1023 pixels of a side would be 1024."""


@dataclass(frozen=True)
class Drawn:
    """An image that was drawn."""

    index: int
    """Into the requests."""
    id: str
    """Its identity, which names the batch shape that it was really drawn at."""
    image: Image.Image


class PrecisionError(ValueError):
    """A device cannot compute a model in a precision; the message says which, and what to ask for."""


class Generator:
    """A loaded pipeline, with an adapter merged in if one is given. A context manager that frees its memory.

    Every batch has `batch_size` places, filled up by repeating the last request, because only at one batch shape is an
    image bit for bit independent of its neighbours (across shapes it differs by one or two grey levels).
    Denoiser and autoencoder compute in the device's precision, text encoders and sampler in fp32. With `offload` each
    part is on the device only while it computes (diffusers' `enable_model_cpu_offload`).
    Raises FileNotFoundError where the folder is missing or incomplete.
    """

    def __init__(
        self,
        source: str | Path,
        device: Device,
        batch_size: int = 16,
        lora: Path | None = None,
        scale: float = 1.0,
        offload: bool = False,
        base: str | Path | None = None,
    ) -> None:
        """`scale` is the share of the adapter that is merged; with a `base`, of all that tells the source from it."""
        folder = find_pipeline(source)
        self.fingerprint = _with_lora(fingerprint(folder), lora, scale)
        if base is not None:
            self.fingerprint = _digest(f"{self.fingerprint} {scale} from {fingerprint(find_pipeline(base))}")
        self.batch_size = batch_size
        """Places in a batch; halved when memory runs out."""
        self._family = family_of(folder)
        self._pipeline = self._family.load()
        if lora is not None:
            merge_adapter(self._pipeline, self._family, lora, scale)
        if base is not None:
            interpolate(self._pipeline, family_of(find_pipeline(base)).load(), self._family, scale)
        config = device.compute_config.within((self._family.side // self._family.factor) ** 2)
        self._device = replace(device, attention=config.attention)
        _place(self._pipeline, self._family, self._device, offload)
        self.image_size = self._family.side
        """Pixels of the side of the square images that the model was trained on."""
        self.token_count, self.text_limit = self._family.text_lengths()
        """How many tokens a prompt takes, those at its ends included, and how many the model reads (77 for CLIP)."""
        self._texts: OrderedDict[str, Texts] = OrderedDict()

    def draw(self, requests: Sequence[Request]) -> Iterator[Drawn]:
        """Yield RGB images as batches finish, equal steps, guidance and size together.

        Images that came out flat or not a number are yielded like others; judging them is not done here. Raises
        ValueError before the first image if a prompt is longer than `text_limit`: nothing is cut silently; and
        PrecisionError where fp16 gives no numbers and fp32 does, as on some cards: no model is to blame for that.
        """
        for text in {text for request in requests for text in (request.prompt, request.negative_prompt)}:
            self._require_fitting(text)
        for indices in alike(requests):
            while indices:
                batch = indices[: self.batch_size]
                try:
                    images = self._draw_batch([requests[i] for i in batch])
                except RuntimeError as error:
                    self._shrink(error)
                    continue
                for index, image in zip(batch, images, strict=True):
                    yield Drawn(index, self.identity().sample_id(requests[index]), image)
                indices = indices[len(batch) :]

    def identity(self) -> GeneratorIdentity:
        """What names the images that `draw` gives now."""
        scheduler = self._pipeline.scheduler
        config = {"class": type(scheduler).__name__, **scheduler.config}
        return GeneratorIdentity(self.fingerprint, self.batch_size, config, self._device.computing())

    def close(self) -> None:
        """Free the model's memory; the generator cannot draw any more."""
        self._pipeline = None
        self._texts.clear()
        gc.collect()
        free_memory(self._device)

    def __enter__(self) -> "Generator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw_batch(self, requests: Sequence[Request]) -> list[Image.Image]:
        """Up to `batch_size` requests of one kind → as many images."""
        places = [*requests, *[requests[-1]] * (self.batch_size - len(requests))]
        latents = self._latents(places)
        if self._device.dtype == torch.float16 and not latents.isfinite().all():
            self._require_no_numbers_in_fp32(places[:1])
        with torch.inference_mode():
            return self._decode(latents)[: len(requests)]

    def _require_no_numbers_in_fp32(self, places: Sequence[Request]) -> None:
        denoiser = getattr(self._pipeline, self._family.denoiser)
        torch.nn.Module.to(denoiser, dtype=torch.float32)
        finite = self._latents(places).isfinite().all()
        torch.nn.Module.to(denoiser, dtype=self._device.dtype)
        if finite:
            where = self._device.description or self._device.name
            raise PrecisionError(
                f"{where} draws no numbers in precision fp16, and does in fp32: set FASHION_PIPELINE_PRECISION=fp32"
            )

    def _latents(self, places: Sequence[Request]) -> torch.Tensor:
        """Requests of one kind → (n, channels, h, w) latents."""
        first = places[0]
        with torch.inference_mode():
            noise = [torch.Generator("cpu").manual_seed(request.seed) for request in places]
            latents: torch.Tensor = self._pipeline(
                **self._family.arguments(
                    [self._embed(request.prompt) for request in places],
                    [self._embed(request.negative_prompt) for request in places],
                ),
                latents=torch.cat(
                    [self._initial(request, random) for request, random in zip(places, noise, strict=True)]
                ),
                generator=noise,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance,
                width=first.width,
                height=first.height,
                output_type="latent",
            ).images
        return self._family.drawn(latents)

    def _initial(self, request: Request, random: torch.Generator) -> torch.Tensor:
        """Standard normal noise, (1, channels, height, width) of the latents, drawn on the CPU on every device."""
        factor = self._family.factor
        shape = (1, self._family.config["in_channels"], request.height // factor, request.width // factor)
        return torch.randn(shape, generator=random)

    def _embed(self, text: str) -> Texts:
        """Texts are encoded one by one, so that no text depends on its neighbours, and remembered."""
        if text not in self._texts:
            embedded = self._family.embed(self._pipeline, text, self._device.name)
            if (len(self._texts) + 1) * sum(tensor.nbytes for tensor in embedded.values()) > REMEMBERED:
                self._texts.popitem(last=False)
            self._texts[text] = embedded
        self._texts.move_to_end(text)
        return self._texts[text]

    def _decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """(n, channels, h, w) latents → n images. Where half precision overflows, decoding is repeated in fp32."""
        decoded = self._decoded(latents)
        if not decoded.isfinite().all() and latents.isfinite().all():
            decoded = self._decoded(latents, torch.float32)
        images: list[Image.Image] = self._pipeline.image_processor.postprocess(
            decoded, output_type="pil", do_denormalize=[True] * len(decoded)
        )
        return images

    def _decoded(self, latents: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """(n, 3, H, W) fp32 pixels, computed in the autoencoder's precision or another."""
        vae = self._pipeline.vae
        precision = vae.dtype
        torch.nn.Module.to(vae, dtype=dtype or precision)
        try:
            pixels: torch.Tensor = vae.decode(self._family.denormalised(latents).to(vae.dtype), return_dict=False)[0]
        finally:  # memory may run out in fp32, and the next try is smaller
            torch.nn.Module.to(vae, dtype=precision)
        return pixels.float()

    def _require_fitting(self, text: str) -> None:
        if (count := self.token_count(text)) > self.text_limit:
            raise ValueError(f"prompt of {count} tokens, but the model reads {self.text_limit}: shorten {text!r}")

    def _shrink(self, error: Exception) -> None:
        """Halve the batch if memory ran out and it can be halved; raise the error otherwise."""
        if not out_of_memory(error) or self.batch_size == 1:
            raise error
        self.batch_size //= 2
        gc.collect()
        free_memory(self._device)


def _with_lora(base: str, lora: Path | None, scale: float) -> str:
    if lora is None:
        return base
    return _digest(f"{base} {file_hash(lora)} {scale} by layer")  # earlier versions merged all layers by one alpha


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


@torch.no_grad()
def interpolate(pipeline: Any, base: Any, family: Family, strength: float) -> None:
    """Weights between those of a base (0) and of the pipeline that was trained on it (1), or beyond: in place.

    For a LoRA that is its strength; for all weights it is the interpolation of Wortsman et al. (2022, WiSE-FT).
    """
    for part in (family.denoiser, *filter(family.has, family.text_encoders)):
        before = dict(getattr(base, part).named_parameters())
        for name, weight in getattr(pipeline, part).named_parameters():
            weight.copy_(torch.lerp(before[name].to(weight), weight, strength))


def _place(pipeline: Any, family: Family, device: Device, offload: bool) -> None:
    """Move the parts to the device; the denoiser takes and gives fp32 whatever it computes in: the sampler is exact."""
    if not offload:
        pipeline.to(device.name)
    denoiser = getattr(pipeline, family.denoiser)
    family.tune(denoiser, device.compute_config)
    for part in (denoiser, pipeline.vae):
        torch.nn.Module.to(part, dtype=device.dtype)  # ModelMixin.to warns on every call
    if device.dtype != torch.float32:
        denoiser.register_forward_pre_hook(_casting, with_kwargs=True)
        denoiser.register_forward_hook(lambda _denoiser, _inputs, output: (_cast(output[0], torch.float32),))
    if offload:
        pipeline.enable_model_cpu_offload(device=device.name)


def _casting(denoiser: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook that brings the noisy latents and what stands for the text to the precision of the denoiser."""
    cast = {name: _cast(value, denoiser.dtype) for name, value in named.items() if name not in _EXACT}
    latents, timestep, others = inputs[:1], inputs[1:2], inputs[2:]
    return (*_cast([*latents], denoiser.dtype), *timestep, *_cast([*others], denoiser.dtype)), {**named, **cast}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, dict):
        return {name: inside if name in _EXACT else _cast(inside, dtype) for name, inside in value.items()}
    if isinstance(value, list):
        return [_cast(each, dtype) for each in value]
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
