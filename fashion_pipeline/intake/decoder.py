"""A process that decodes photos: `python -m fashion_pipeline.intake.decoder`, started by `decoding`.

A file that makes a decoder crash, loop or swell takes this process down, and nothing else. It reads a request a line
(JSON: `location`, `large`) and writes an answer a line: what a catalog needs of a photo, or why it cannot be used.
"""

import json
import resource
import select
import sys
from contextlib import suppress
from typing import Any

from fashion_pipeline.core.catalog.fingerprints import fingerprint
from fashion_pipeline.intake.photos import (
    LargePhotoError,
    PhotoError,
    content_id,
    decode_photo,
    read_bytes,
    require_content,
)

MEMORY = 1_600 << 20
"""Bytes that decoding one photo may take."""

SECONDS = 60
"""Of a processor, that decoding one photo may take."""

IDLE_SECONDS = 30.0
"""After so long without a request the process ends."""


def main() -> int:
    """Answer until nobody asks any more."""
    _limit(resource.RLIMIT_DATA, MEMORY)
    _limit(resource.RLIMIT_FSIZE, 0)  # decoding writes nothing
    _limit(resource.RLIMIT_CORE, 0)
    while select.select([sys.stdin], [], [], IDLE_SECONDS)[0] and (line := sys.stdin.buffer.readline()):
        request = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS)
        sys.stdout.buffer.write(json.dumps(answer(request["location"], request["large"])).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


def answer(location: str, large: bool) -> dict[str, Any]:
    """What a catalog needs of the photo, `fault`, or `large` for one that is decoded when no other is."""
    try:
        data = read_bytes(location)
        photo = decode_photo(location, data, large=large)
        require_content(photo.image)
        printed, thumbnail = fingerprint(photo.image)
    except LargePhotoError:
        return {"large": True}
    except PhotoError as error:
        return {"fault": str(error)}
    except MemoryError:
        return {"fault": too_much("memory", f"{MEMORY >> 20} MiB")}
    return {
        "id": content_id(data),
        "width": photo.width,
        "height": photo.height,
        "bytes": len(data),
        "hash": printed,
        "thumbnail": thumbnail.tobytes().hex(),
        "note": photo.note,
    }


def too_much(what: str, limit: str) -> str:
    """Why a photo that costs too much is refused."""
    return f"decoding it takes more {what} than {limit}: export it as JPEG, or smaller"


def _limit(which: int, most: int) -> None:
    """Lower a limit of this process, as far as the system knows it."""
    with suppress(ValueError, OSError):
        resource.setrlimit(which, (most, resource.getrlimit(which)[1]))


if __name__ == "__main__":
    sys.exit(main())
