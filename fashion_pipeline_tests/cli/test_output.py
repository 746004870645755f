"""Tables and answers, on a terminal and in a pipe."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fashion_pipeline import api
from fashion_pipeline.cli import console
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.cli.conftest import call


def test_a_query_is_answered_as_a_table(root: Path) -> None:
    Store(root).records.add(
        "catalog", "coat", tables={"images": [], "rejects": [{"path": "a[1].jpg", "reason": "empty"}]}
    )
    result = call("sql", "SELECT style, path FROM rejects")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [["style", "path"], ["coat", "a[1].jpg"]]


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT * FROM nowhere"])
def test_a_query_with_an_error_shows_it_without_a_traceback(query: str) -> None:
    result = call("sql", query)
    assert result.exit_code == 1
    assert result.output.count("error:") == 1 and "Traceback" not in result.output
    assert "Parser Error" in result.output or "nowhere" in result.output


def test_thumbnails_and_embeddings_do_not_fill_the_terminal(root: Path) -> None:
    result = call("sql", "SELECT from_hex('00ff') AS thumbnail, range(500) AS embedding, [1, 2] AS few, NULL AS none")
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split("  ") != [] and "(2 bytes)" in result.output
    assert "(500 values)" in result.output and "[1, 2]" in result.output and len(result.output) < 300


def test_a_result_of_prompts_alone_is_listed(root: Path) -> None:
    store = Store(root)
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    report = {"optimized_prompt": "a photo of a red coat"}
    store.records.add("prompt_report", "coat", files={"report.json": report})
    assert "a photo of a red coat" in call("styles").output
    assert api.report("coat") == report


def test_the_best_prompts_of_a_style_are_listed_to_copy(root: Path) -> None:
    store = Store(root)
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    words = {"strategy": "grown", "negative_prompt": ""}
    best = words | {"candidate": "a", "prompt": "a photo of a red coat", "images": 21, "products": 9, "rung": 2}
    best |= {"mean": 0.671, "low": 0.61, "high": 0.72}
    seen = words | {"phrases": [], "images": 16}
    looks = [seen | {"candidate": c, "prompt": p, "score": 0.6} for c, p in (("a", best["prompt"]), ("b", "a jacket"))]
    empty: dict[str, list[dict[str, object]]] = {name: [] for name in ("samples", "formats", "phrases", "progress")}
    store.records.add("search", "coat", tables={**empty, "leaderboard": [best], "explored": looks})

    lines = [line.split("\t") for line in call("prompts", "--style", "coat").output.splitlines()]
    assert lines == [
        ["prompt", "strategy", "similarity", "95 %", "images"],
        ["a photo of a red coat", "grown", "0.671", "0.610 to 0.720", "21"],
        ["a jacket", "grown", "0.600", "", "16"],
    ]
    told = json.loads(call("prompts", "--style", "coat", "--json", "-n", "1").output)
    assert (told["optimized_prompt"], told["strategy"]) == ("a photo of a red coat", "grown")
    assert told["similarity_score"] == pytest.approx(0.671) and len(told["prompts"]) == 1
    assert "has no search yet" in call("prompts", "--style", "hat").output


# What a new user ran into


def test_a_query_in_a_pipe_is_lines_with_tabs_that_are_never_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = call("sql", f"SELECT '{'x' * 300}' AS \"[bold]long\", 'a\tb' AS \"[/]two\"")
    assert result.stdout.splitlines() == ["[bold]long\t[/]two", f"{'x' * 300}\ta b"]


def test_a_query_without_rows_shows_its_columns() -> None:
    result = call("sql", "SELECT style, path FROM rejects")
    assert result.stdout.splitlines() == ["style\tpath"] and "no rows" in result.stderr


def test_what_a_query_may_touch_stands_in_its_help() -> None:
    assert "It only reads" in call("sql", "--help").output


def test_ids_are_whole_in_a_narrow_terminal_and_between_tabs_in_a_pipe(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"version": "0123456789abcdef" * 2, "state": "in use", "what else there is": "word " * 30}]
    monkeypatch.setattr(
        api, "versions", lambda style: [{**rows[0], "bytes": 1, "bytes of its own": 1, "judge gain": None}]
    )
    piped = call("versions", "--style", "coat")
    header, row = piped.stdout.splitlines()
    assert header.split("\t")[:2] == ["version", "state"] and row.split("\t")[0] == rows[0]["version"]
    shown = StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=60))
    console.show(rows)
    assert rows[0]["version"] in shown.getvalue()


@pytest.mark.parametrize(
    "arguments", [("sql", "SELECT range AS n FROM range(500000)"), ("status", "--json"), ("styles",)]
)
def test_a_reader_that_leaves_is_no_error(root: Path, arguments: tuple[str, ...]) -> None:
    for style in range(60):
        Store(root).sources.register(f"style-{style}", "coat " * 100, SourceSpec("/photos"))
    program = [sys.executable, "-m", "fashion_pipeline.cli", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Broken pipe" not in told and "Traceback" not in told and "Exception ignored" not in told
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_rows_of_an_answer_are_not_all_in_memory_as_text(root: Path) -> None:
    code = (
        "import sys; from fashion_pipeline.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    program = [sys.executable, "-c", code, "sql", "SELECT range AS n FROM range(2000000)"]
    ended = subprocess.run(program, capture_output=True, check=True)
    assert ended.stdout.count(b"\n") == 2_000_001
    assert int(ended.stderr.split()[-1]) < 450 * 1024, "KiB; as Python objects the rows alone take 800 MB"


def test_a_terminal_shows_the_beginning_of_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=60))
    monkeypatch.setattr("fashion_pipeline.cli.commands.out", console.out)
    result = call("sql", "SELECT range AS n FROM range(3000)")
    assert len(shown.getvalue().splitlines()) == 1001 and "and 2,000 rows more" in result.stderr


def test_a_locale_that_is_not_utf_8_is_to_blame_and_not_the_name(tmp_path: Path, root: Path) -> None:
    (tmp_path / "photos" / "旗袍").mkdir(parents=True)
    (tmp_path / "photos" / "旗袍" / "a.png").write_bytes(b"x")
    settings = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "500"}
    program = [sys.executable, "-m", "fashion_pipeline.cli", "run", "--source", str(tmp_path / "photos")]
    for style in ("旗袍", "coat"):
        ended = subprocess.run(
            [*program, "--style", style], env=os.environ | settings, capture_output=True, check=False
        )
        told = (ended.stdout + ended.stderr).decode(errors="replace")
        assert ended.returncode == 1 and "Traceback" not in told
        assert "locale's encoding is" in told and "set LC_ALL=C.UTF-8" in told, told


BY = ("encoder", "judge")


def test_a_run_ends_with_a_line_on_each_thing_that_people_want_to_know(root: Path) -> None:
    store = Store(root)

    def cell(model: str, measure: str, mean: float) -> dict[str, object]:
        place = {"model": model, "prompt": "plain", "measure": measure, "split": "dev"}
        return place | {"mean": mean, "low": None, "high": None, "n": 48}

    figures = (("original", 0.4, 0.5), ("specialised", 0.7, 0.6))
    scores = [cell(name, by, mean) for name, *means in figures for by, mean in zip(BY, means, strict=True)]
    report = {"style": "coat", "optimized_prompt": "a red coat", "strategy": "top_k", "scores": scores, "model": "v1"}
    report |= {"verdict": "better", "reason": "Closer by both."}
    store.records.add("model", "coat", key="v1")
    store.records.add("evaluation", "coat", files={"report.json": report, "report.html": "<p>page</p>"})
    found = api.outcome("coat")
    assert (found.headline, found.reason) == ("Training helped.", "Closer by both.")
    assert (found.prompt.prompt, found.state, found.in_use) == ("a red coat", "ready to publish", None)
    assert found.next == "fashion-pipeline publish --style coat"
    (root / "model").mkdir()
    store.versions.assemble("coat", "v1", root / "model", {}, {})
    store.versions.hold("coat", "v1")
    assert api.outcome("coat").state == "waits for approval"
    assert api.outcome("coat").next == "fashion-pipeline publish --style coat"
    store.versions.promote("coat", "v1")
    found = api.outcome("coat")
    assert (found.state, found.in_use, found.folder) == ("in use", "v1", store.versions.folder("coat", "v1"))
    assert found.next == "fashion-pipeline generate --style coat"
