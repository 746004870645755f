"""What starts a run when photos arrive."""

import dagster as dg

from fashion_pipeline.core.listing import CatalogError, listing_state
from fashion_pipeline.core.sources import read_source
from fashion_pipeline.defs.intake import known_sources, take_in
from fashion_pipeline.defs.jobs import full_pipeline_job
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.resources.storage import Storage


@dg.sensor(job=full_pipeline_job, minimum_interval_seconds=60)
def new_photos(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult:
    """Adds a partition for every new style, and asks for one run for each state of a style's photos."""
    requests: list[dg.RunRequest] = []
    problems: list[str] = []
    for spec in known_sources(storage):
        try:
            listing = read_source(spec)
            take_in(storage, spec, listing)
        except CatalogError as error:
            context.log.warning(str(error))
            problems.append(str(error))
            continue
        for style in listing.styles():
            state = listing_state(listing.of(style).entries)
            requests.append(dg.RunRequest(run_key=f"{style}:{state}", partition_key=style, tags={"photos": state}))
    added = sorted({str(request.partition_key) for request in requests})
    return dg.SensorResult(
        run_requests=requests,
        skip_reason="; ".join(problems) if problems and not requests else None,
        dynamic_partitions_requests=[styles.build_add_request(added)] if added else [],
    )
