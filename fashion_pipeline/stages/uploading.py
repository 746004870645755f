"""Uploading a version to the Hugging Face hub: what others need to draw with it, and nothing that shows photos."""

from collections.abc import Sequence
from pathlib import Path

from fashion_pipeline.stages.reports import PAGE
from fashion_pipeline.store.versions import TRAIL


def files_to_upload(folder: Path, *, everything: bool = False) -> list[str]:
    """Paths below a version's folder, in order; the report and the trail only if everything is asked for."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path.as_posix() for path in found if everything or (path.parts[0] != TRAIL and path.name != PAGE)]


def upload_folder(folder: Path, repository: str, names: Sequence[str]) -> None:
    """Upload files to a model repository, which is made as a private one if it is not there."""
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repository, repo_type="model", private=True, exist_ok=True)
    hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(names))
