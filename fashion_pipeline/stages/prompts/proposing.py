"""Asking a language model for prompts, by OpenAI's chat completions, which llama.cpp and vLLM serve too.

Whatever is wrong with it (down, slow, no JSON, a login), the search goes on without it and says why. Answers are kept:
a search that is stopped and started again gets the same ones.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.growing import Seen
from fashion_pipeline.core.prompts.proposals import kept_out, messages_for, proposals_in
from fashion_pipeline.settings import Profile, read_secrets
from fashion_pipeline.stages.drawing.drawing import Report
from fashion_pipeline.store.storage.files import slug
from fashion_pipeline.store.store import Store

SECONDS = 120.0
"""That an answer may take."""

LARGEST = 1_000_000
"""Bytes of an answer that are read."""


class ProposerError(RuntimeError):
    """A language model did not answer; the message says why, and what to do."""


class Proposer:
    """The language model of a profile, asked about one style."""

    def __init__(self, store: Store, profile: Profile, style: str, report: Report) -> None:
        """The profile must name one."""
        assert profile.proposer is not None
        self._files, self._proposer, self._report = store.files, profile.proposer, report
        self._folder = self._files.inside("work", "proposals", slug(style))
        self._is_kept_out = kept_out(profile.looks.never)
        self._gone = False
        self.exchanges: list[dict[str, Any]] = []
        """What was asked, what was answered, and which prompts were taken."""

    def propose(self, subject: str, seen: Sequence[Seen], fits: Callable[[str], bool]) -> list[Candidate]:
        """New prompts, given what was looked at, best first; none after it failed once."""
        if self._gone:
            return []
        messages = messages_for(subject, seen)
        try:
            answer = self._answer(messages)
        except ProposerError as error:
            self._gone = True
            self._report(f"{error}. The search goes on without it")
            return []
        known = {each.candidate.id for each in seen}
        taken = [each for each in proposals_in(answer, fits, self._is_kept_out) if each.id not in known]
        self.exchanges.append({"asked": messages, "answered": answer, "taken": [each.prompt for each in taken]})
        self._report(f"the language model proposed {len(taken)} prompts that can be drawn")
        return taken

    def _answer(self, messages: list[dict[str, str]]) -> str:
        """The model's words, from disk where the same was asked before. Raises ProposerError."""
        body = {"model": self._proposer.model, "messages": messages, "temperature": self._proposer.temperature}
        question = json.dumps({"address": self._proposer.address, **body}, sort_keys=True)
        file = self._folder / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"
        if file.exists():
            return str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        answer = _asked(self._proposer.address, body)
        self._files.write_json(file, {"answer": answer})
        return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the address that was configured, and nowhere else."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


def _asked(address: str, body: dict[str, Any]) -> str:
    """Ask a server. Raises ProposerError."""
    headers = {"Content-Type": "application/json", "User-Agent": "fashion-pipeline"}
    if key := read_secrets().proposer_key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{address.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
    )
    where = f"the language model at {address}"
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as response:
            content = response.read(LARGEST)
        return str(json.loads(content)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        mend = (
            "set FASHION_PIPELINE_PROPOSER_KEY"
            if error.code in (401, 403)
            else "check `address` and `model` under [proposer] of the profile"
        )
        raise ProposerError(f"{where} answered with status {error.code}: {mend}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ProposerError(
            f"{where} gave no answer as chat completions do: check `address` under [proposer] of the profile"
        ) from error
    except OSError as error:  # timeouts and URLError are, too
        reason = getattr(error, "reason", error)
        raise ProposerError(f"{where} does not answer ({reason}): start it, or remove [proposer]") from error
