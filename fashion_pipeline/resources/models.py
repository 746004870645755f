"""The models of the profile: which checkpoints, on which device, and for how long they stay in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from fashion_pipeline.core.attributes import Vocabulary, read_vocabulary
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.settings import Profile, read_profile

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Generator
    from fashion_pipeline.ml.encoders import ClipEncoder, JudgeEncoder


class Models(dg.ConfigurableResource):  # type: ignore[type-arg]
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
