"""Object storage by its URLs: opening it, and saying what is wrong with it."""

import re
from typing import Any

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""Kind of URL → the extra that installs its client."""


_NO_BUCKET = re.compile(r"the specified (bucket|container) does not exist", re.IGNORECASE)
"""How S3, Google Cloud Storage and Azure say that there is no such bucket. Only the word "bucket" would not do: of a
missing file the text is its path."""


def is_url(path: str) -> bool:
    """Whether something lies in object storage rather than on a disk."""
    return "://" in path


def opened(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there. Raises ValueError that says what to install or correct."""
    import fsspec

    try:
        fs, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        extra = EXTRAS.get(url.partition("://")[0])
        mend = f"install the extra {extra!r}" if extra else "use s3://, gs:// or az://"
        raise ValueError(f"{url} cannot be opened ({error}): {mend}") from error
    return fs, path.rstrip("/")


def refusal(url: str, error: Exception) -> str:
    """Why storage will not do something however often it is asked, with the way out; empty where it may do so later."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if isinstance(error, FileNotFoundError) and _NO_BUCKET.search(message):
        return f"{url}: {message}: create it, or correct the URL"
    if isinstance(error, PermissionError) or "credential" in type(error).__name__.lower():
        mend = "give credentials as the storage's own tools take them (for S3 AWS_ACCESS_KEY_ID or a profile)"
        return f"{url} lets nobody in ({message}): {mend}"
    return ""


def silence(url: str, error: Exception) -> str:
    """That storage did not do what it was asked, as it may a minute later."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return f"{url} does not answer ({type(error).__name__}: {message}): try again"
