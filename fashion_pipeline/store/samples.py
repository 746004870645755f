"""Generated images, by the id that hashes all that determines them: `images/<first two digits>/<id>.png`."""

from pathlib import Path

from PIL import Image

from fashion_pipeline.store.storage.files import Files


class SampleImages:
    """The PNG files of samples."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def path(self, sample: str) -> Path:
        """Where the PNG of a sample lies, if it was drawn."""
        return self._files.here(self._place(sample))

    def location(self, sample: str) -> str:
        """The same as text, as `open_photo` takes it."""
        return str(self.path(sample))

    def write(self, sample: str, image: Image.Image) -> None:
        """Store a sample's PNG, atomically."""
        self._files.place(self._place(sample), lambda temporary: image.save(temporary, format="PNG"))

    def readable(self, sample: str) -> bool:
        """Whether the PNG is there and whole, by its own checksums."""
        try:
            with Image.open(self.path(sample), formats=["PNG"]) as image:
                image.verify()
        except Exception:  # Pillow raises whatever a broken file makes its decoder trip over
            return False
        return True

    def all(self) -> list[Path]:
        """Every sample's file."""
        return self._files.glob(self._files.inside("images"), "??/*.png")

    def _place(self, sample: str) -> Path:
        return self._files.inside("images", sample[:2], f"{sample}.png")
