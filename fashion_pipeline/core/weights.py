"""What can be told of a file of weights without reading them."""

import json
from pathlib import Path

_LENGTH = 8
_LONGEST = 100_000_000


def is_whole(file: Path) -> bool:
    """Whether a safetensors file has all the bytes that its header names: a download that broke off has not.

    The format: 8 bytes with the header's length, little-endian, the header as JSON, and the tensors
    (https://huggingface.co/docs/safetensors, "Format").
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH), "little")
            if length > _LONGEST:
                return False
            header = json.loads(stream.read(length))
        tensors = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == _LENGTH + length + max(tensors, default=0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return False
