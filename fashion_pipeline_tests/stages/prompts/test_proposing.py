"""A language model behind an address: what it is asked, and what happens where it answers badly or not at all."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.growing import RUNGS, WORD, Seen
from fashion_pipeline.core.prompts.proposals import PROPOSED
from fashion_pipeline.settings import Profile, ProposerSettings, read_profile
from fashion_pipeline.stages.prompts import proposing
from fashion_pipeline.stages.prompts.looks import explore
from fashion_pipeline.stages.prompts.proposing import Proposer
from fashion_pipeline.store.store import Store

SEEN = [Seen(Candidate(WORD, "a photo of a gown"), RUNGS[-1], 0.6)]


class Server:
    """Answers as a server of chat completions does, with what the test says."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: list[str] = []
        """What the model says, one question after the other; the last one again and again."""
        self.status, self.body, self.location = 200, "", ""
        self.silent, self._released = False, threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append({"path": self.path, **json.loads(content)})
                server.keys.append(self.headers["Authorization"])
                if server.silent:
                    server._released.wait(30)
                    return
                said = server.answers[min(len(server.asked), len(server.answers)) - 1] if server.answers else ""
                body = server.body or json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})
                self.send_response(server.status)
                if server.location:
                    self.send_header("Location", server.location)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def profile(server: Server) -> Profile:
    return replace(read_profile("embedded"), proposer=ProposerSettings(address=server.address, model="tiny"))


def anything(text: str) -> bool:
    return True


def asked(store: Store, profile: Profile) -> tuple[list[str], list[str]]:
    """The prompts that came of one question, and what was said."""
    said: list[str] = []
    proposer = Proposer(store, profile, "coat", said.append)
    return [each.prompt for each in proposer.propose("ethnic wear", SEEN, anything)], said


def test_prompts_are_asked_for_with_what_was_tried_and_the_same_question_is_answered_from_disk(
    server: Server, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_PROPOSER_KEY", "sesame")
    server.answers = ['["a photo of a gown", "a photo of a sari"]']
    store = Store(tmp_path)
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    assert asked(store, profile)[0] == ["a photo of a sari"]  # the other one is known
    assert (server.asked[0]["path"], server.asked[0]["model"]) == ("/v1/chat/completions", "tiny")
    assert "0.600  a photo of a gown" in server.asked[0]["messages"][1]["content"]
    assert server.keys == ["Bearer sesame"]
    assert asked(store, profile)[0] == ["a photo of a sari"] and len(server.asked) == 1
    assert "sesame" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    store.forget("coat")
    assert asked(store, profile)[0] == ["a photo of a sari"] and len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, "", "answered with status 401: set FASHION_PIPELINE_PROPOSER_KEY"),
        (404, "", "answered with status 404: check `address` and `model` under"),
        (302, "", "answered with status 302"),
        (200, "<html>a login</html>", "gave no answer as chat completions do: check `address`"),
        (200, '{"choices": []}', "gave no answer as chat completions do"),
        (200, "[1, 2]", "gave no answer as chat completions do"),
    ],
)
def test_a_server_that_answers_badly_is_left_alone_with_the_reason(
    server: Server, profile: Profile, tmp_path: Path, status: int, body: str, told: str
) -> None:
    server.status, server.body = status, body
    server.location = "http://127.0.0.1:9/elsewhere" if status == 302 else ""
    said: list[str] = []
    proposer = Proposer(Store(tmp_path), profile, "coat", said.append)
    assert [proposer.propose("coat", SEEN, anything) for _ in range(3)] == [[], [], []]
    assert len(server.asked) == 1 and len(said) == 1
    assert told in said[0] and server.address in said[0] and said[0].endswith("The search goes on without it")


def test_a_server_that_is_down_or_silent_is_named(
    server: Server, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposing, "SECONDS", 0.2)
    server.silent = True
    assert "does not answer (timed out)" in asked(Store(tmp_path), profile)[1][0]
    down = replace(profile, proposer=ProposerSettings(address="http://127.0.0.1:9/v1", model="tiny"))
    assert "does not answer ([Errno 111]" in asked(Store(tmp_path), down)[1][0]


class Looker:
    """Scores prompts by their length: what a language model may find out."""

    def __init__(self) -> None:
        self.looked = 0

    def announce(self, words: Sequence[Candidate]) -> None:
        pass

    def scores(self, candidates: Sequence[Candidate], images: int) -> list[float]:
        self.looked += len(candidates)
        return [len(each.prompt) / 100 for each in candidates]


def test_rounds_of_proposals_see_how_those_before_did_and_compete_with_what_grew(
    server: Server, profile: Profile, tmp_path: Path
) -> None:
    answers = [[f"a photo of a very{' very' * (3 * r + k)} long gown" for k in range(4)] for r in range(9)]
    server.answers = [json.dumps(each) for each in answers]
    words = [Attribute("garment", p, p, 1.0) for p in ("gown", "tunic", "top")]
    proposer = Proposer(Store(tmp_path), profile, "coat", lambda text: None)
    found = explore(Looker(), [], words, "ethnic", anything, 240, proposer)  # type: ignore[arg-type]
    assert found.images <= 240 and 2 <= len(server.asked) <= 4
    assert "very very very long gown" in server.asked[1]["messages"][1]["content"]
    assert found.seen[0].candidate.strategy == PROPOSED
    assert [each["answered"] for each in proposer.exchanges] == server.answers[: len(server.asked)]
    again = Proposer(Store(tmp_path), profile, "coat", lambda text: None)
    count = len(server.asked)
    assert explore(Looker(), [], words, "ethnic", anything, 240, again) == found  # type: ignore[arg-type]
    assert len(server.asked) == count and again.exchanges == proposer.exchanges


def test_without_an_answer_the_search_finds_what_it_finds_alone(
    server: Server, profile: Profile, tmp_path: Path
) -> None:
    server.answers = ["I would rather write a poem."]
    words = [Attribute("garment", p, p, 1.0) for p in ("gown", "tunic", "top")]
    proposer = Proposer(Store(tmp_path), profile, "coat", lambda text: None)
    found = explore(Looker(), [], words, "ethnic", anything, 240, proposer)  # type: ignore[arg-type]
    assert len(server.asked) == 1 and {each.candidate.strategy for each in found.seen} == {WORD, "grown"}
