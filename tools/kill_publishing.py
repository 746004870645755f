"""Kills a process in the middle of publishing, replacing, refusing, rolling back, deleting and withdrawing.

    python -m tools.kill_publishing [--rounds 20]

Each round starts a child that does one of these over and over and kills it with SIGKILL after a random time. After each
kill the champion of the style must be one of the versions, whole (every file of it has its own content), and it must be
the one from before or the one from after. The last line says how often that was so.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fashion_pipeline.store.storage.files import read_json
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import put_in_use

STYLE = "coat"
FILES = 40
"""Of a version; many small ones take longer to link and copy than a process lives."""


def model_folder(root: Path) -> Path:
    """A folder like that of a pipeline, of which each file holds its own name."""
    folder = root / "model"
    for part in range(FILES):
        file = folder / f"part-{part % 5}" / f"{part}{'.safetensors' if part % 2 else '.json'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{{"name": "{file.name}"}}' * 200)
    return folder


def publish(store: Store, model: Path, round_: int) -> None:
    """Version after version takes the champion's place."""
    for count in range(10_000):
        put_in_use(store, STYLE, f"v{round_}-{count}", model, {"README.md": "card"}, {})


def hold(store: Store, model: Path, round_: int) -> None:
    """Versions that wait, and are approved."""
    for count in range(10_000):
        version = f"h{round_}-{count}"
        store.versions.assemble(STYLE, version, model, {}, {})
        store.versions.hold(STYLE, version)
        store.versions.promote(STYLE, version)


def roll_back(store: Store, model: Path, round_: int) -> None:
    """Back to the version before, and forth again."""
    put_in_use(store, STYLE, f"r{round_}", model, {}, {})
    for _ in range(10_000):
        _, before = store.versions.roll_back(STYLE)
        store.versions.promote(STYLE, before)


def delete(store: Store, model: Path, round_: int) -> None:
    """Versions that are published, replaced and removed."""
    champion = store.versions.pointer(STYLE).version
    assert champion
    for count in range(10_000):
        version = f"d{round_}-{count}"
        put_in_use(store, STYLE, version, model, {}, {})
        store.versions.promote(STYLE, champion)
        store.versions.delete(STYLE, version)


def withdraw(store: Store, model: Path, round_: int) -> None:
    """Photo after photo."""
    for count in range(10_000):
        row = {"id": f"{round_}-{count}", "path": "x.png", "perceptual_hash": count, "thumbnail": bytes(768)}
        store.withdrawals.add(STYLE, [row])


DEEDS: dict[str, Callable[[Store, Path, int], None]] = {
    each.__name__: each for each in (publish, hold, roll_back, delete, withdraw)
}


def whole(store: Store) -> str:
    """What is wrong with the champion; empty where it loads."""
    champion = store.versions.champion(STYLE)
    if champion is None:
        return "no champion"
    files = [file for file in champion.rglob("*") if file.is_file() and file.parent.name.startswith("part-")]
    torn = [file.name for file in files if file.read_text() != f'{{"name": "{file.name}"}}' * 200]
    if torn or len(files) != FILES:
        return f"{champion.name} has {len(files)} of {FILES} files, torn: {torn}"
    if read_json(champion / "version.json", "no version.json")["version"] != champion.name:
        return f"{champion.name} says it is another one"
    store.withdrawals.all()
    found = [folder.name for folder in store.versions.all(STYLE)]
    return "" if champion.name in found else f"{champion.name} is not among {found}"


def main() -> None:
    """Kill, look, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deed", choices=sorted(DEEDS), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.deed:
        DEEDS[given.deed](Store(given.root / "data"), given.root / "model", given.round)
        return
    rng, faults, killed = random.Random(0), [], 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = model_folder(root)
        store = Store(root / "data")
        for version in ("v0", "v1"):
            put_in_use(store, STYLE, version, model, {}, {})
        for round_ in range(given.rounds):
            for deed in DEEDS:
                program = [sys.executable, "-m", "tools.kill_publishing", "--deed", deed, "--root", str(root)]
                child = subprocess.Popen([*program, "--round", str(round_)])
                time.sleep(rng.uniform(0.6, 1.4))
                child.send_signal(signal.SIGKILL)
                killed += child.wait() == -signal.SIGKILL
                if fault := whole(Store(root / "data")):
                    faults.append(f"round {round_}, {deed}: {fault}")
            print(f"round {round_ + 1} of {given.rounds}: {len(faults)} faults", flush=True)
    print("\n".join(faults) or f"after {killed} kills of {len(DEEDS)} deeds the champion was whole each time")
    os._exit(1 if faults or killed < given.rounds * len(DEEDS) else 0)


if __name__ == "__main__":
    main()
