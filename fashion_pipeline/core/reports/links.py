"""Where the web server of `fashion-pipeline ui` serves what lies in the data root: addresses on the same host."""

from urllib.parse import quote

ROOT = "/fashion"
"""What all of them begin with."""


def _link(*parts: str) -> str:
    return "/".join((ROOT, *(quote(part, safe="") for part in parts)))


def index_link() -> str:
    """The page of all styles."""
    return f"{ROOT}/"


def version_link(style: str, version: str) -> str:
    """The page of everything behind a published version."""
    return _link("versions", style, version)


def version_report_link(style: str, version: str) -> str:
    """The report of a published version."""
    return _link("versions", style, version, "report")


def version_photo_link(style: str, version: str, photo: str) -> str:
    """A photo that went into a version."""
    return _link("versions", style, version, "photos", photo)


def sample_link(sample: str) -> str:
    """A generated image."""
    return _link("samples", f"{sample}.png")


def page_link(kind: str, style: str, key: str) -> str:
    """The page of a prompt report or an evaluation."""
    return _link("records", kind, style, key)


def picture_link(kind: str, style: str, key: str, name: str) -> str:
    """A picture that an asset shows."""
    return _link("pictures", kind, style, key, name)


def run_link(run: str) -> str:
    """The page of a run in the Dagster UI."""
    return f"/runs/{quote(run, safe='')}"
