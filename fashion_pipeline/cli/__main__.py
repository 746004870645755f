"""`python -m fashion_pipeline.cli` is `fashion-pipeline`."""

from fashion_pipeline.cli import app

app()
