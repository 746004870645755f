"""The fashion-pipeline command: a thin face of `api`."""

from fashion_pipeline.cli import operation, releases
from fashion_pipeline.cli.commands import app

operation.register(app)
releases.register(app)

__all__ = ["app"]
