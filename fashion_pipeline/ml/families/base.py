"""What every family of models answers. All that is outside of this folder knows this interface only.

A family is read from the folder of a pipeline: which parts it has, how a text becomes what the denoiser is told, how
latents are normalised, what is predicted, which layers LoRA reaches and what other programs call them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, ModelMixin
from transformers import AutoConfig, AutoTokenizer

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.files import only_errors, quiet, variant_of
from fashion_pipeline.ml.tuning import ComputeConfig

Texts = dict[str, torch.Tensor]
"""Tensors that stand for a text, or for several with a row each: what the pipeline takes, by the name of its argument
(`prompt_embeds`), or where text encoders learn the token ids that they read."""

CLIP_TOKENS = 77
"""Tokens that CLIP reads, the two at the ends included, where a configuration does not say."""


class Family(ABC):
    """The base in one folder, as a member of its family. Nothing is loaded before `load`.

    Raises ValueError for a folder of the family whose model is for something else, such as inpainting.
    """

    title: ClassVar[str]
    """What people call it."""
    pipeline_class: ClassVar[Any]
    denoiser: ClassVar[str]
    """The part of the pipeline that is trained."""
    denoiser_class: ClassVar[Any]
    text_encoders: ClassVar[Mapping[str, Any]]
    """Part → its class, in the order in which the pipeline reads texts."""
    tokenizers: ClassVar[Sequence[str]]
    """The parts that go with them, in the same order."""
    learning_encoders: ClassVar[Sequence[str]] = ()
    """The text encoders that can be trained; `token_ids` and `embed_ids` go with them."""
    optional: ClassVar[Sequence[str]] = ()
    """Of these those that may be missing."""
    embeds: ClassVar[tuple[str, ...]]
    """The pipeline's arguments that stand for a text."""
    autoencoder_class: ClassVar[Any] = AutoencoderKL
    other_parts: ClassVar[Mapping[str, str]]
    """Part → what stands in front of its layers in the format of other programs, the mark between included."""
    left_out: ClassVar[Mapping[str, Any]] = {}
    """Parts of a pipeline that are never loaded, as its class takes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_json(folder / "model_index.json")
        self.config = read_json(folder / self.denoiser / "config.json")
        """Of the denoiser."""
        self.autoencoder = read_json(folder / "vae" / "config.json")
        for part in (*self.text_encoders, *self.tokenizers):
            if not self.has(part) and part not in self.optional:
                raise ValueError(
                    f"{folder} has no {part}, without which {self.title} reads no prompt: name a whole base"
                )
        takes, latent = self.config["in_channels"], self.latent_channels
        if takes != latent:
            raise ValueError(
                f"{folder} has a {self.denoiser} of {takes} channels, {latent} of them latents: it is made for "
                "inpainting or editing; name a base that draws from text alone"
            )

    # What the folder says

    @property
    def latent_channels(self) -> int:
        """Channels of the latents as the denoiser knows them."""
        return int(self.autoencoder.get("latent_channels", 4))

    @property
    def factor(self) -> int:
        """Pixels of a latent's side, as the denoiser knows latents."""
        return int(2 ** (len(self.autoencoder["block_out_channels"]) - 1))

    @property
    def side(self) -> int:
        """Pixels of the side of the square images that the base was trained on."""
        return int(self.config["sample_size"]) * self.factor

    @property
    def probe_side(self) -> int:
        """Latents of the side of what is computed to compare weights."""
        return int(self.config["sample_size"])

    @property
    @abstractmethod
    def unit(self) -> int:
        """Pixels that the sides of an image must be multiples of."""

    @property
    def predicts(self) -> str:
        """What the denoiser predicts, as its scheduler calls it."""
        scheduler = read_json(self.folder / "scheduler" / "scheduler_config.json")
        return str(scheduler.get("prediction_type", "epsilon"))

    def text_lengths(self) -> tuple[Callable[[str], int], int]:
        """How many tokens a text takes, those at its ends included, and how many the base reads of one."""
        tokenizer = self.tokenizer()
        parts = [part for part in self.text_encoders if self.has(part)]
        configs = [AutoConfig.from_pretrained(self.folder, subfolder=part, trust_remote_code=False) for part in parts]
        most = min(int(getattr(config, "max_position_embeddings", CLIP_TOKENS)) for config in configs)
        return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"]), most

    def tokenizer(self) -> Any:
        """The tokenizer whose count of tokens is the one that limits a text."""
        return AutoTokenizer.from_pretrained(self.folder, subfolder=self.tokenizers[0], trust_remote_code=False)

    def has(self, part: str) -> bool:
        """Whether the folder has a part; some are optional."""
        return bool(self.index.get(part)) and self.index[part][0] is not None

    # Loading

    def load(self, dtype: torch.dtype = torch.float32) -> Any:
        """The pipeline on the CPU, without progress bar.

        Safetensors only. Raises ValueError that names the weights which the folder lacks: the libraries would fill
        them in at random.
        """
        quiet()
        kinds = {self.denoiser: self.denoiser_class, "vae": self.autoencoder_class, **self.text_encoders}
        models = {part: whole(kind, self.folder / part, dtype) for part, kind in kinds.items() if self.has(part)}
        models |= {part: None for part in self.optional if not self.has(part)}
        pipeline = self.pipeline_class.from_pretrained(self.folder, **models, use_safetensors=True, **self.left_out)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def load_autoencoder(self) -> Any:
        """The autoencoder alone, in fp32 on the CPU."""
        quiet()
        return whole(self.autoencoder_class, self.folder / "vae", torch.float32)

    def skeleton(self, part: str) -> Any:
        """A part that learns, without its weights: on the meta device, where nothing takes memory."""
        with torch.device("meta"):
            if part == self.denoiser:
                return self.denoiser_class.from_config(self.config)
            config = AutoConfig.from_pretrained(self.folder / part, trust_remote_code=False)
            return self.text_encoders[part](config)

    def drawing(self, denoiser: Any, vae: Any, scheduler: Any) -> Any:
        """A pipeline that draws from embedded texts, without text encoders."""
        readers = dict.fromkeys([*self.text_encoders, *self.tokenizers])
        parts = {self.denoiser: denoiser, "vae": vae, "scheduler": scheduler}
        pipeline = self.pipeline_class(**parts, **readers, **self.left_out)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    # Texts

    @abstractmethod
    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """One text as the pipeline embeds it, in fp32, without a dimension for the batch."""

    @abstractmethod
    def probe(self, pipeline: Any, random: torch.Generator) -> Texts:
        """Two texts that nobody wrote, as text encoders and denoiser answer to them, to compare weights by."""

    def token_ids(self, pipeline: Any, text: str) -> Texts:
        """What text encoders that learn read of one text; asked of families with `learning_encoders` only."""
        raise NotImplementedError

    def embed_ids(self, text_encoders: Mapping[str, Any], ids: Texts) -> Texts:
        """The same as `embed` from a batch of `token_ids`, so that a gradient reaches the text encoders."""
        raise NotImplementedError

    def arguments(self, texts: Sequence[Texts], negative: Sequence[Texts]) -> dict[str, Any]:
        """What the pipeline is called with for a batch of texts and as many negative ones."""
        wanted = {name: torch.stack([text[name] for text in texts]) for name in self.embeds}
        return wanted | {f"negative_{name}": torch.stack([text[name] for text in negative]) for name in self.embeds}

    # Latents and predictions

    def drawn(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) latents that the pipeline gives → as the denoiser knows them."""
        return latents

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) latents of the autoencoder → as the denoiser knows them."""
        shift = self.autoencoder.get("shift_factor")
        return (latents - shift if shift else latents) * float(self.autoencoder["scaling_factor"])

    def denormalised(self, latents: torch.Tensor) -> torch.Tensor:
        """The other way round: what the autoencoder decodes."""
        latents = latents / float(self.autoencoder["scaling_factor"])
        shift = self.autoencoder.get("shift_factor")
        return latents + shift if shift else latents

    @abstractmethod
    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """(n, c, h, w) of what the denoiser predicts for a batch."""

    def tune(self, denoiser: Any, config: ComputeConfig) -> None:  # noqa: B027 - most have nothing to set
        """Set how a denoiser computes; its precision is the caller's to set. A transformer's attention is fused."""

    # LoRA

    @abstractmethod
    def layers(self, part: str, recipe: Recipe) -> tuple[str, ...]:
        """The ends of the names of a part's layers that get additions."""

    def other_layer(self, part: str, layer: str) -> str:
        """What other programs call a layer, without the part in front: mostly what diffusers does.

        Layers of one name are one layer there, their outputs in a row.
        """
        return layer

    def other_name(self, part: str, layer: str) -> str:
        """The same with the part in front; kohya-ss/sd-scripts puts underscores for points."""
        start, layer = self.other_parts[part], self.other_layer(part, layer)
        return start + (layer if start.endswith(".") else layer.replace(".", "_"))

    @abstractmethod
    def architecture(self) -> tuple[str, str]:
        """What Stability AI's ModelSpec and what kohya's `ss_base_model_version` call the base."""


def whole(kind: Any, part: Path, dtype: torch.dtype) -> Any:
    """One part of a pipeline, all of whose weights were in its files. Raises ValueError that names those missing."""
    precision = {"torch_dtype": dtype} if issubclass(kind, ModelMixin) else {"dtype": dtype}
    with only_errors("transformers"), only_errors("diffusers"):  # what is missing is raised below
        model, loading = kind.from_pretrained(
            part, variant=variant_of(part), use_safetensors=True, output_loading_info=True, **precision
        )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{part} has no weights for {', '.join(missing[:3])}, which would be left untrained: put a complete copy "
            "of the model there"
        )
    return model


def read_json(file: Path) -> dict[str, Any]:
    """A configuration."""
    return dict(json.loads(file.read_text(encoding="utf-8")))
