"""The partitions: one a style. They are dynamic, because a user's styles are not known in advance."""

import dagster as dg

styles = dg.DynamicPartitionsDefinition(name="styles")

OWNERS = ["team:fashion-ml"]
