"""What a training says is shown, however its file is seen to grow."""

import json
import time
from pathlib import Path
from threading import Thread
from typing import Any

from fashion_pipeline.running.messages import WholeLineReader


class Heard:
    """Stands where Dagster handles messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.messages.append(message)


def test_a_message_that_is_seen_before_it_is_whole_is_waited_for(tmp_path: Path) -> None:
    said = [{"method": "log", "params": {"message": f"step {step}: " + "…" * 50}} for step in range(3)]
    heard, file = Heard(), tmp_path / "messages"

    def write() -> None:
        with file.open("a", encoding="utf-8") as stream:
            for message in said:
                text = json.dumps(message) + "\n"
                for half in (text[:75], text[75:]):
                    stream.write(half)
                    stream.flush()
                    time.sleep(0.05)

    with WholeLineReader(str(file)).read_messages(heard):  # type: ignore[arg-type]
        writer = Thread(target=write)
        writer.start()
        writer.join()
    assert heard.messages == said
