"""The models of the profile: which checkpoints, on which device, and for how long they stay in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from fashion_pipeline.core.attributes import Vocabulary, read_vocabulary
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.settings import Profile, read_profile

WEIGHTS = "fashion_lora_weights.safetensors"

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Generator
    from fashion_pipeline.ml.encoders import ClipEncoder, JudgeEncoder


TrainingReport = Callable[[int, int, float | None, float | None], None]
"""Called with step, steps in all, training loss and held-out loss."""


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    log: list[dict[str, Any]]
    """Rows of table `training_log`."""
    steps_run: int
    """Steps this call computed; 0 where it had been finished before."""
    resumed_from: int | None
    notes: tuple[str, ...]


class Models(dg.ConfigurableResource):
    """Lends models: each is loaded on entering its context and freed on leaving."""

    profile: str
    """A profile's name, or the path of a profile file."""
    gpu: dg.ResourceDependency[Gpu]

    def read(self) -> Profile:
        """The profile's data."""
        return read_profile(self.profile)

    def vocabulary(self) -> Vocabulary:
        """The facets and values that the encoder is asked about."""
        return read_vocabulary(self.read().vocabulary)

    @contextmanager
    def generator(self, folder: Path | None = None) -> Iterator["Generator"]:
        """The profile's generator, or the pipeline in a folder."""
        from fashion_pipeline.ml.diffusion import Generator

        profile = self.read()
        with Generator(folder or profile.generator, self.gpu.pick(), profile.generation.batch_size) as generator:
            yield generator

    @contextmanager
    def encoder(self) -> Iterator["ClipEncoder"]:
        """The encoder that chooses."""
        from fashion_pipeline.ml.devices import free_memory
        from fashion_pipeline.ml.encoders import load_clip

        device = self.gpu.pick()
        yield load_clip(self.read().encoder, device)
        free_memory(device)

    @contextmanager
    def judge(self) -> Iterator["JudgeEncoder"]:
        """The encoder that only evaluates."""
        from fashion_pipeline.ml.devices import free_memory
        from fashion_pipeline.ml.encoders import load_judge

        device = self.gpu.pick()
        yield load_judge(self.read().judge, device)
        free_memory(device)

    def base_fingerprint(self) -> str:
        """The fingerprint of the profile's generator."""
        from fashion_pipeline.ml.sources import find_pipeline, fingerprint

        return fingerprint(find_pipeline(self.read().generator))

    def prompt_fits(self) -> Callable[[str], bool]:
        """A function that tells whether the generator's text encoder reads a prompt whole."""
        from fashion_pipeline.ml.pipelines import prompt_lengths

        count, limit = prompt_lengths(self.read().generator)
        return lambda prompt: count(prompt) <= limit

    def finetune(
        self,
        pairs: Sequence[tuple[str, str]],
        held_out: Sequence[tuple[str, str]],
        recipe: Mapping[str, Any],
        folder: Path,
        report: TrainingReport,
    ) -> Trained:
        """Train LoRA weights on (image, caption) pairs into a folder, or go on where an earlier call stopped."""
        from fashion_pipeline.core.photos import open_photo
        from fashion_pipeline.ml.exporting import export_lora
        from fashion_pipeline.ml.finetuning import finetune
        from fashion_pipeline.ml.recipes import FinetuneConfig, TrainingPair

        result = finetune(
            self.read().generator,
            [TrainingPair(*pair) for pair in pairs],
            [TrainingPair(*pair) for pair in held_out],
            FinetuneConfig(**recipe),
            folder,
            self.gpu.pick(),
            report=lambda row: report(row.step, row.steps, row.loss, row.held_out_loss),
            load_image=open_photo,
            cache=folder.parent / "cache",
        )
        export_lora(folder, folder / WEIGHTS, {})
        names = ("step", "loss", "held_out_loss", "learning_rate", "gradient_norm")
        log = [{name: getattr(row, name) for name in names} for row in result.log]
        return Trained(log, result.steps_run, result.resumed_from, result.notes)

    def export(self, training: Path, folder: Path) -> tuple[float, float]:
        """Write the complete pipeline of a training, unless it is there; returns its effect and its relative error."""
        from fashion_pipeline.ml.exporting import export_pipeline, verify_export

        base = self.read().generator
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            export_pipeline(base, training / WEIGHTS, folder)
        verified = verify_export(base, training, folder)
        return verified.effect, verified.error
