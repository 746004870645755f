"""Kill a prompt search at random moments with SIGKILL, start it again each time, and compare the results.

    python -m tools.kill_search [--kills 10] [--budget 192]

Two sample styles of 64 photos, the embedded models, one thread, and a server that proposes prompts as a language model
would, another one for each question. Every start goes on with the looks, answers and images that are there. Prints
after how many looks and images it was killed, how many images the last start still had to draw, what the server was
asked, and whether the record (leaderboard, samples, looks, formats, phrases) is the same; fails if it is not, or if
more than a batch was drawn twice, or a question was asked again that had been answered.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.settings import PACKAGE, PROFILES, read_profile
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.catalog.features import describe
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import write_candidates
from fashion_pipeline.stages.prompts.search import search
from fashion_pipeline.store.store import Store

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
STYLES = ("coat", "bag")
PHOTOS = 64
HELD_OUT = 8
COLOURS, GARMENTS = ("red", "navy", "beige", "black"), ("coat", "jacket", "parka", "blazer", "gown")


def main(kills: int, budget: int) -> int:
    """Print what happened; returns 1 if the search did not end as the undisturbed one."""
    questions: list[str] = []
    server = _server(questions)
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            (Path(folder) / "photos" / style).mkdir(parents=True)
            for photo in sorted((SAMPLES / style).glob("*.png"))[:PHOTOS]:
                shutil.copy(photo, Path(folder) / "photos" / style)
        (Path(folder) / "profile.toml").write_text(_profile(server.server_port), encoding="utf-8")
        whole, broken = (_described(Path(folder), name) for name in ("undisturbed", "killed"))
        subprocess.run(_command(whole, budget), check=True, env=_environment())
        asked, images, all_ = len(questions), len(Store(whole).samples.all()), _made(whole)
        at = sorted(random.Random(0).sample(range(1, all_), kills))
        found = [_kill(broken, budget, count) for count in at]
        left = images - len(Store(broken).samples.all())
        ended = subprocess.run(_command(broken, budget), check=True, env=_environment(), capture_output=True, text=True)
        drawn = int(ended.stdout.split()[-1])
        same = _record(whole) == _record(broken)
    again = len(questions) - 2 * asked
    twice = drawn - left
    print(f"{all_} looks and images; killed after {', '.join(map(str, found))}; the last start drew {drawn} of {left}")
    print(f"{asked} questions, {again} asked again")
    print("the same record" if same else "NOT THE SAME RECORD")
    return int(not same or not asked or again > kills or twice > read_profile("embedded").generation.batch_size)


def _profile(port: int) -> str:
    """The embedded profile without the looks that ship, and with a proposer."""
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace('shipped = "../embedded/looks"', "")
    proposer = f'[proposer]\naddress = "http://127.0.0.1:{port}/v1"\nmodel = "tool"\n'
    return text.replace("../embedded", str(PACKAGE / "embedded")) + proposer


def _server(questions: list[str]) -> ThreadingHTTPServer:
    """Proposes four prompts that depend on the question alone, and notes what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = self.rfile.read(int(self.headers["Content-Length"])).decode()
            questions.append(question)
            words = random.Random(question)
            prompts = [f"a photo of a {words.choice(COLOURS)} {words.choice(GARMENTS)}" for _ in range(4)]
            answer = {"choices": [{"message": {"role": "assistant", "content": json.dumps(prompts)}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: what is asked is counted."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _made(root: Path) -> int:
    """Looks and images that are kept."""
    looks = sum(pq.read_metadata(file).num_rows for file in (root / "looks").rglob("*.parquet"))
    return looks + len(Store(root).samples.all())


def _described(folder: Path, name: str) -> Path:
    """A data root with both styles described."""
    store = Store(folder / name)
    store.root.mkdir(parents=True)
    (store.root / "machine").symlink_to(folder / "machine")
    (folder / "machine").mkdir(exist_ok=True)
    spec = SourceSpec(str(folder / "photos"))
    for style in take_in(store, spec, read_source(spec)):
        catalogue(store, style)
        describe(store, _models(store.root), style, lambda text: None)
    return store.root


def _kill(root: Path, budget: int, count: int) -> int:
    """Start the search and kill it once so many looks and images are there; how many there were then."""
    process = subprocess.Popen(_command(root, budget), env=_environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and _made(root) < count:
        time.sleep(0.02)
    process.kill()
    process.wait()
    return _made(root)


def _search(root: Path, budget: int) -> None:
    """What is killed: the candidates and the search; prints how many images were drawn."""
    store, models = Store(root), _models(root)
    write_candidates(store, models, STYLES[0])
    limits = {"budget": budget, "held_out_products": HELD_OUT}
    print(search(store, models, STYLES[0], **limits, report=lambda text: None).drawn)


def _record(root: Path) -> str:
    """The key hashes all tables."""
    return Store(root).records.latest("search", STYLES[0]).key


def _models(root: Path) -> Models:
    return Models(str(root.parent / "profile.toml"), "cpu", "fp32", root / "machine")


def _command(root: Path, budget: int) -> list[str]:
    return [sys.executable, "-m", "tools.kill_search", "--search", str(root), "--budget", str(budget)]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--budget", type=int, default=192)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.search:
        _search(given.search, given.budget)
        sys.exit(0)
    sys.exit(main(given.kills, given.budget))
