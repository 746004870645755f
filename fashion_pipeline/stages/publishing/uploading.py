"""Uploading a version to the Hugging Face hub: what others need to draw with it, and nothing that shows photos."""

from collections.abc import Sequence
from pathlib import Path

from fashion_pipeline.core.names import REPORT_PAGE
from fashion_pipeline.core.texts import text
from fashion_pipeline.store.versions import TRAIL

CARD = "README.md"


def files_to_upload(folder: Path, *, everything: bool = False) -> list[str]:
    """Paths below a version's folder, in order; the report and the trail only if everything is asked for."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path.as_posix() for path in paths if everything or (path.parts[0] != TRAIL and path.name != REPORT_PAGE)]


def card_for(folder: Path, repository: str, names: Sequence[str]) -> bytes:
    """The version's card, loading it from the repository; it names nothing that is not among the files there."""
    card = (folder / CARD).read_text(encoding="utf-8").replace("<this folder>", repository)
    if REPORT_PAGE not in names:
        card = card.replace(f"{text('card.beside')}\n\n", "")
    return card.encode()


def upload_folder(folder: Path, repository: str, names: Sequence[str]) -> None:
    """Upload files to a model repository in one commit; it is made as a private one if it is not there."""
    from huggingface_hub import CommitOperationAdd, HfApi

    files: dict[str, Path | bytes] = {name: folder / name for name in names}
    if CARD in files:
        files[CARD] = card_for(folder, repository, names)
    hub = HfApi()
    hub.create_repo(repository, repo_type="model", private=True, exist_ok=True)
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    hub.create_commit(repository, added, commit_message=f"Version {folder.name}")
