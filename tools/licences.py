"""What users install with the program, and its licences: `python -m tools.licences > docs/licences.md`."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

PROGRAM = "fashion-pipeline"
EXTRAS = ("", "kubernetes", "postgres", "ray", "s3")
"""What users install; `dev` and `audit` are for developers."""

HEAD = """# Licences

What `pip install 'fashion-pipeline[kubernetes,postgres,ray,s3]'` brings, with the licence that each package states.
Written by `python -m tools.licences`; a test fails where a package is missing here or states a licence that forbids
what users of this program do. On CUDA, torch brings packages of NVIDIA under its own licence.

| package | licence |
| --- | --- |"""


def installed(name: str = PROGRAM, extras: tuple[str, ...] = EXTRAS) -> dict[str, Distribution]:
    """Name → distribution, of a package's requirements and theirs, as far as they are installed here."""
    found: dict[str, Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        try:
            known = distribution(package)
        except PackageNotFoundError:
            continue
        plain = _plain(package)
        if plain in found and wanted == ("",):
            continue
        found[plain] = known
        for text in known.requires or ():
            requirement = Requirement(text)
            needed = any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in wanted)
            if needed and (_plain(requirement.name) not in found or requirement.extras):
                waiting.append((requirement.name, ("", *sorted(requirement.extras))))
    found.pop(_plain(name))
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """What a package states: its SPDX expression, its classifiers, or the first line of its text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier", []) if text.startswith("License")]
    stated = [text for text in classifiers if text != "OSI Approved"]
    return "; ".join(stated) or (metadata.get("License") or "not stated").strip().splitlines()[0][:60]


def rows() -> Iterator[str]:
    """The table of docs/licences.md."""
    for name, package in installed().items():
        yield f"| {name} | {licence(package)} |"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print("\n".join([HEAD, *rows()]))
