"""What follows by itself when somebody materialises an asset by hand.

Only what is made from something else within minutes follows. What costs hours begins with a person, or with a reason
that the sensor `new_photos` or the schedule finds; and what is published is decided by a person or by a job.
"""

import dagster as dg

from fashion_pipeline.running.runs import REASON

_CHANGED = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
_IDLE = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()

FOLLOWS = (_CHANGED.since_last_handled() & ~dg.AutomationCondition.any_deps_missing() & _IDLE).with_label(
    "an input has other content"
)
"""Another data version of an input, once nothing that leads there is under way. The same content again is no reason."""

FOLLOWS_ANY = (_CHANGED.since_last_handled() & _IDLE).with_label("an input of any style has other content")
"""The same for an asset over all styles, some of which may have no input yet."""

stale_assets = dg.AutomationConditionSensorDefinition(
    "stale_assets",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.STOPPED,
    run_tags={REASON: "an input has other content"},
    description=(
        "Rebuilds what became stale because somebody materialised an asset by hand: clip_features after raw_images; "
        "similarity_table and prompt_report after generated_samples; specialised_model and evaluation_report after "
        "lora_weights; style_leaderboard after evaluation_report. Content that is the same again makes nothing stale. "
        "Prompts are not searched and weights not trained because of it, and nothing is published."
    ),
)
