"""ICC profiles as cameras, phones and print shops embed them, written by hand (ICC.1:2001-04)."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Space:
    """An RGB space by the colorants that its profiles hold (relative to D50), and its gamma."""

    colorants: tuple[tuple[float, float, float], ...]
    """XYZ of red, green and blue."""
    gamma: float


SRGB = Space(((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), 2.2)
ADOBE_RGB = Space(((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.19922)
DISPLAY_P3 = Space(((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2)
PROPHOTO = Space(((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491)), 1.8)


def encoded(colour: tuple[int, int, int], space: Space) -> tuple[int, ...]:
    """A colour of sRGB as a file in another space holds it."""
    linear = _linear(np.array(colour) / 255)
    xyz = np.array(SRGB.colorants).T @ linear
    other = np.linalg.solve(np.array(space.colorants).T, xyz)
    return tuple(round(255 * value) for value in np.clip(other, 0, 1) ** (1 / space.gamma))


def rgb_profile(space: Space, name: str = "test") -> bytes:
    """A display profile of an RGB space."""
    tags = {b"desc": _description(name), b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    for letter, colorant in zip(b"rgb", space.colorants, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(*colorant)
        tags[bytes([letter]) + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * space.gamma)) + b"\0\0"
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def cmyk_profile() -> bytes:
    """A printer's profile of two points a channel: each ink darkens, magenta prints as a dull red."""
    inks = [(55, -37, -50), (48, 60, 20), (89, -5, 93), (16, 0, 0)]  # Lab of cyan, magenta, yellow, black
    grid = []
    for corner in np.ndindex(2, 2, 2, 2):
        lab = np.array([100.0, 0.0, 0.0])
        for used, ink in zip(corner, inks, strict=True):
            if used:
                lab = np.array([lab[0] * ink[0] / 100, (lab[1] + ink[1]) / 1.5, (lab[2] + ink[2]) / 1.5])
        grid += [round(lab[0] * 2.55), round(lab[1] + 128), round(lab[2] + 128)]
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if at in (0, 4, 8) else 0 for at in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + bytes(np.clip(grid, 0, 255).tolist()) + 3 * ramp
    tags = {b"desc": _description("press"), b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags | dict.fromkeys((b"A2B0", b"A2B1", b"A2B2"), lut))


def _linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in (x, y, z)))


def _description(name: str) -> bytes:
    text = name.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4sI", start + len(body), b"none", 0x02100000) + kind + space + pcs + bytes(12) + b"acsp"
    header += bytes(28) + white + bytes(48)
    assert len(header) == 128
    return header + struct.pack(">I", len(tags)) + table + body
