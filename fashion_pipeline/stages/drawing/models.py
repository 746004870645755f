"""The models of a profile: which checkpoints, on which device, and for how long they stay in memory. No Dagster."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fashion_pipeline.core.features.attributes import Vocabulary, read_vocabulary
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.settings import Profile, Settings, read_profile
from fashion_pipeline.stages.drawing.workers import ImageGenerator, Pipeline, Workers

if TYPE_CHECKING:
    from fashion_pipeline.ml.autoencoding import Autoencoder
    from fashion_pipeline.ml.devices import Device
    from fashion_pipeline.ml.diffusion import Generator
    from fashion_pipeline.ml.encoders import ClipEncoder, JudgeEncoder
    from fashion_pipeline.ml.training.results import Progress
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
    def generator(
        self, folder: Path | None = None, lora: Path | None = None, strength: float = 1.0
    ) -> Iterator["Generator"]:
        """The profile's generator, or the pipeline in a folder; with a LoRA file merged in, if one is given.

        `strength` is the share that is drawn with of what a training on the profile's generator changed.
        """
        from fashion_pipeline.ml.diffusion import Generator

        device = self.pick()
        with self.named("generator", folder):
            drawing = self.profile.generation
            source = folder or self.profile.generator
            base = None if folder is None or strength == 1 else self.profile.generator
            generator = Generator(source, device, drawing.batch_size, lora, strength, drawing.offload, base)
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

    def fingerprint(self, role: str) -> str:
        """The fingerprint of the profile's generator, encoder or judge, without loading it."""
        from fashion_pipeline.ml.encoders import encoder_fingerprint
        from fashion_pipeline.ml.files import fingerprint
        from fashion_pipeline.ml.sources import find_model, find_pipeline

        with self.named(role):
            if role == "generator":
                return fingerprint(find_pipeline(self.profile.generator))
            return encoder_fingerprint(find_model(getattr(self.profile, role)), whole=self.profile.whole_photos)

    @contextmanager
    def _lent(self, role: str, load: Callable[["Device"], Loaded]) -> Iterator[Loaded]:
        """A model of the profile while the block runs; errors of loading it name the role."""
        with self._freed() as device:
            with self.named(role):
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
    def named(self, role: str, folder: Path | None = None) -> Iterator[None]:
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
