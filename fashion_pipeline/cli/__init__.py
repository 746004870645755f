"""The fashion-pipeline command: a thin face of `api`."""

import os

from fashion_pipeline.cli import operation, releases
from fashion_pipeline.cli.commands import app

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it warns of as it is imported is nothing to mend here

operation.register(app)
releases.register(app)

__all__ = ["app"]
