"""What the command and a notebook call: optimise prompts, fine-tune, compare; generate, report, ask; publish, trace.

```python
from fashion_pipeline import api

api.optimize_prompts("coat", source="data/samples")
api.finetune("coat")
print(api.compare("coat")["verdict"])
```
"""

from fashion_pipeline.api.automation import alerts, automate, automation, try_alerts
from fashion_pipeline.api.common import Tell
from fashion_pipeline.api.reading import (
    compare,
    evaluate,
    export_dataset,
    generate,
    outcome,
    prompts,
    report,
    report_page,
    sql,
    style,
    styles,
)
from fashion_pipeline.api.releases import (
    delete_version,
    publish,
    rollback,
    stale,
    trace,
    unpublish,
    upload,
    versions,
    withdraw,
)
from fashion_pipeline.api.running import (
    JOBS,
    OPS,
    Config,
    Follow,
    Mode,
    RunError,
    choose,
    finetune,
    optimize_prompts,
    run,
)
from fashion_pipeline.api.upkeep import Check, clean, doctor, move, remove, status

__all__ = [
    "JOBS",
    "OPS",
    "Check",
    "Config",
    "Follow",
    "Mode",
    "RunError",
    "Tell",
    "alerts",
    "automate",
    "automation",
    "choose",
    "clean",
    "compare",
    "delete_version",
    "doctor",
    "evaluate",
    "export_dataset",
    "finetune",
    "generate",
    "move",
    "optimize_prompts",
    "outcome",
    "prompts",
    "publish",
    "remove",
    "report",
    "report_page",
    "rollback",
    "run",
    "sql",
    "stale",
    "status",
    "style",
    "styles",
    "trace",
    "try_alerts",
    "unpublish",
    "upload",
    "versions",
    "withdraw",
]
