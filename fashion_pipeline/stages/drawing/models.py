"""The models of a profile: which checkpoints, on which device, and for how long they stay in memory. No Dagster."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fashion_pipeline.core.features.attributes import Vocabulary, read_vocabulary
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.settings import Profile, Settings, read_profile
from fashion_pipeline.stages.drawing.workers import ImageGenerator, Pipeline, Workers

if TYPE_CHECKING:
    from PIL import Image

    from fashion_pipeline.ml.autoencoding import Autoencoder
    from fashion_pipeline.ml.devices import Device
    from fashion_pipeline.ml.diffusion import Generator
    from fashion_pipeline.ml.encoders import ClipEncoder, JudgeEncoder
    from fashion_pipeline.ml.training.results import Progress, TrainingJob, TrainingResult
    from fashion_pipeline.ml.tuning import Task


Loaded = TypeVar("Loaded")

TrainingReport = Callable[["Progress"], None]
"""Called with each row of the training log."""


class ModelError(RuntimeError):
    """A model of the profile cannot be loaded; the message says which, why, and what to do."""


def cards() -> int:
    """How many graphics cards take one heavy step each; torch is not asked where there is no driver for any."""
    if not Path("/proc/driver/nvidia/version").exists():
        return 0
    from fashion_pipeline.ml.devices import cuda_devices

    return cuda_devices()


def watch_device_memory() -> None:
    """Begin to measure what devices hold at most. What never used torch does not load it for this."""
    if "torch" in sys.modules:
        from fashion_pipeline.ml.devices import forget_device_peak

        forget_device_peak()


def device_memory() -> int | None:
    """The most bytes that a device of this process held since then; None without a CUDA device."""
    if "torch" not in sys.modules:
        return None
    from fashion_pipeline.ml.devices import device_peak

    return device_peak()


@dataclass(frozen=True)
class Models:
    """Lends models: each is loaded on entering its context and freed on leaving. Raises ModelError."""

    profile_name: str
    """A profile's name, or the path of a profile file."""
    device: str = "auto"
    precision: str = "auto"
    machine: Path | None = None
    """Where it is kept how this machine computes fastest."""
    workers: Workers | None = None
    """Processes elsewhere that embed and draw; None: this one does."""
    cluster: str = ""
    """Address of the Ray cluster on which several processes train together; empty: on this machine."""

    @classmethod
    def of(cls, settings: Settings) -> "Models":
        """The models of an installation."""
        return cls(settings.profile, settings.device, settings.precision, settings.data / "machine")

    @cached_property
    def profile(self) -> Profile:
        """The profile's data."""
        return read_profile(self.profile_name)

    def vocabulary(self) -> Vocabulary:
        """The facets and values that the encoder is asked about."""
        return read_vocabulary(self.profile.vocabulary)

    def pick(self, task: "Task" = "drawing") -> "Device":
        """The device to use. Raises ValueError that names the mend where the one asked for is missing."""
        from fashion_pipeline.ml.devices import pick_device

        return pick_device(self.device, self.precision, task, self.machine)

    @contextmanager
    def generator(self, folder: Path | None = None, lora: Path | None = None) -> Iterator["Generator"]:
        """The profile's generator, or the pipeline in a folder; with a LoRA file merged in, if one is given."""
        from fashion_pipeline.ml.diffusion import Generator

        device = self.pick()
        with self._named("generator", folder):
            generator = Generator(folder or self.profile.generator, device, self.profile.generation.batch_size, lora)
        with generator:
            yield generator

    @contextmanager
    def image_generator(self, folder: Path | None = None, lora: Path | None = None) -> Iterator[ImageGenerator]:
        """What draws: the generator of the same arguments, or processes elsewhere that have it."""
        if self.workers:
            yield self.workers.image_generator(Pipeline(folder, lora))
        else:
            with self.generator(folder, lora) as generator:
                yield generator

    def autoencoder(self, recipe: Recipe) -> AbstractContextManager["Autoencoder"]:
        """The generator's autoencoder, at the shapes that a recipe trains at."""
        from fashion_pipeline.ml.autoencoding import Autoencoder

        return self._lent("generator", lambda device: Autoencoder(self.profile.generator, device, recipe))

    def encoder(self) -> AbstractContextManager["ClipEncoder"]:
        """The encoder that chooses."""
        from fashion_pipeline.ml.encoders import load_clip

        whole = self.profile.whole_photos
        return self._lent("encoder", lambda device: load_clip(self.profile.encoder, device, whole=whole))

    def judge(self) -> AbstractContextManager["JudgeEncoder"]:
        """The encoder that only evaluates."""
        from fashion_pipeline.ml.encoders import load_judge

        whole = self.profile.whole_photos
        return self._lent("judge", lambda device: load_judge(self.profile.judge, device, whole=whole))

    def unet_bytes(self) -> int:
        """Bytes of the generator's UNet, which each version has its own of; 0 where the model is not here yet."""
        unet = Path(self.profile.generator) / "unet"
        return sum(file.stat().st_size for file in unet.glob("*.safetensors") if file.name.count(".") == 1)

    def licence(self) -> str | None:
        """The licence that the generator's own card tells, as the hub writes it; None where it tells none."""
        from fashion_pipeline.ml.sources import find_pipeline, licence_of

        with self._named("generator"):
            return licence_of(find_pipeline(self.profile.generator))

    def fingerprint(self, role: str) -> str:
        """The fingerprint of the profile's generator, encoder or judge, without loading it."""
        from fashion_pipeline.ml.encoders import encoder_fingerprint
        from fashion_pipeline.ml.sources import find_model, find_pipeline, fingerprint

        with self._named(role):
            if role == "generator":
                return fingerprint(find_pipeline(self.profile.generator))
            return encoder_fingerprint(find_model(getattr(self.profile, role)), whole=self.profile.whole_photos)

    def prompt_fits(self) -> Callable[[str], bool]:
        """A function that tells whether the generator's text encoder reads a prompt whole."""
        from fashion_pipeline.ml.pipelines import prompt_lengths

        with self._named("generator"):
            count, limit = prompt_lengths(self.profile.generator)
        return lambda prompt: count(prompt) <= limit

    def unknown_words(self, prompt: str, folder: Path | None = None) -> list[str]:
        """The words of a prompt that the generator's text encoder cannot know."""
        from fashion_pipeline.ml.pipelines import unknown_words

        with self._named("generator", folder):
            return unknown_words(folder or self.profile.generator, prompt)

    def training_identity(self, job: "TrainingJob") -> tuple[str, dict[str, Any]]:
        """The key of a training, and all that determines it; where it is to lie does not count."""
        from fashion_pipeline.ml.sources import find_pipeline
        from fashion_pipeline.ml.training.identity import identity_of, key_of

        with self._named("generator"):
            folder = find_pipeline(job.base)
        identity = identity_of(folder, job, self.pick("training"))
        return key_of(identity), identity

    def finetune(
        self,
        job: "TrainingJob",
        title: str,
        report: TrainingReport,
        tell: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> "TrainingResult":
        """Train into the job's output, or go on where an earlier call stopped; write LoRA files under the title."""
        from fashion_pipeline.ml.training.exports.exporting import export_loras
        from fashion_pipeline.ml.training.finetuning import finetune
        from fashion_pipeline.ml.training.processes import leads

        with self._named("generator"):
            self.fingerprint("generator")
        load = _image_loader(job)
        result = finetune(job, self.pick("training"), report=report, tell=tell, load_image=load, stop=stop)
        if leads():
            export_loras(job.base, job.output, job.output, {"title": title})
        return result

    def require_base(self, made_of: Mapping[str, Any], what: str) -> None:
        """Raise ModelError where `what` was made with another base than the profile's generator is now.

        `made_of` is the identity of the training behind it.
        """
        base = made_of.get("base")
        if base is not None and base != (now := self.fingerprint("generator")):
            raise ModelError(
                f"{what} was trained on the base {base}, but the generator of profile {self.profile.name!r} is now "
                f"{now}: materialise lora_weights again, or run it with the profile that it was trained with"
            )

    def export(self, training: Path, folder: Path) -> tuple[float, float]:
        """Write the complete pipeline of a training; returns the training's effect and the export's relative error.

        Raises ModelError where the profile's generator is not the base that was trained on.
        """
        from fashion_pipeline.ml.training.exports.exporting import export_pipeline, verify_export

        export_pipeline(self.profile.generator, training, folder)
        verified = verify_export(self.profile.generator, training, folder)
        return verified.effect, verified.error

    def require_lora(self, lora: Path) -> None:
        """Raise ModelError for a LoRA file that cannot be read, or does not fit the profile's generator."""
        from fashion_pipeline.ml.adapters import AdapterError, MisfitError
        from fashion_pipeline.ml.training.exports.exporting import LEAST_EFFECT, effect_of

        if not lora.is_file():
            raise ModelError(f"there is no file {lora}: name a LoRA in diffusers', kohya's or peft's format")
        self.fingerprint("generator")
        mend = f"name one that was trained on {self.profile.generator}, or a profile with its base"
        try:
            effect = effect_of(self.profile.generator, lora)
        except AdapterError as error:
            message = f"{lora} cannot be judged on the generator of profile {self.profile.name!r}: {error}"
            raise ModelError(f"{message}: {mend}" if isinstance(error, MisfitError) else message) from error
        if effect < LEAST_EFFECT:
            raise ModelError(f"{lora} changes nothing in the generator of profile {self.profile.name!r}: {mend}")

    @contextmanager
    def _lent(self, role: str, load: Callable[["Device"], Loaded]) -> Iterator[Loaded]:
        """A model of the profile while the block runs; errors of loading it name the role."""
        with self._freed() as device:
            with self._named(role):
                model = load(device)
            yield model
            del model

    @contextmanager
    def _freed(self) -> Iterator["Device"]:
        """The device; its memory is given back however the block ends."""
        import gc

        from fashion_pipeline.ml.devices import free_memory

        device = self.pick()
        try:
            yield device
        finally:
            gc.collect()
            free_memory(device)

    @contextmanager
    def _named(self, role: str, folder: Path | None = None) -> Iterator[None]:
        """Errors of the libraries that load a model become one that says which model, and what to do."""
        source = str(folder or getattr(self.profile, role))
        try:
            yield
        except ModelError:
            raise
        except Exception as error:  # model libraries raise whatever a broken folder or network makes them trip over
            message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            mend = (
                "put a complete copy of the model there, or name another one in the profile"
                if Path(source).is_absolute()
                else "check that the hub can be reached, download it once (hf download), or name a local folder"
            )
            raise ModelError(
                f"the {role} of profile {self.profile.name!r}, {source}, cannot be loaded "
                f"({type(error).__name__}: {message}): {mend}"
            ) from error


def _image_loader(job: "TrainingJob") -> Callable[[str], "Image.Image"]:
    """Opens the images of a training; a photo that is not the one that was curated is refused."""
    from fashion_pipeline.intake.photos import PhotoError, open_photo
    from fashion_pipeline.ml.training.results import TrainingError

    images = (*job.pairs, *job.held_out, *(job.validation.photos if job.validation else ()))
    contents = {image.path: image.id for image in images if image.photo}

    def load(path: str) -> "Image.Image":
        try:
            return open_photo(path, content=contents.get(path, ""))
        except PhotoError as error:
            raise TrainingError(f"training image {path}: {error}; or leave it out") from error

    return load
