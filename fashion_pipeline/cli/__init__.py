"""The fashion-pipeline command: a thin face of `api`."""

from fashion_pipeline.cli import releases
from fashion_pipeline.cli.commands import app

releases.register(app)

__all__ = ["app"]
