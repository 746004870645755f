"""The Arrow schema of every table: its columns, their types and what they mean.

The store writes nothing that does not fit its schema, and Dagster shows the same descriptions on the asset's page.
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 4
"""Raised when a column comes or changes its meaning; stored in every file."""

READABLE_FROM = 3
"""Files of this schema version and later are read: since then columns came, and none has changed its meaning."""


ADDED: dict[str, int] = {"explored": 4}
"""Table → the schema version that it came with: records of before have none, which reads as an empty one."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False


_ATTRIBUTES = pa.map_(pa.string(), pa.string())
_EMBEDDING = pa.list_(pa.float32())
_PHRASES = pa.list_(pa.string())

_SAMPLES = (
    Column("id", pa.string(), "hash of all that determines the image"),
    Column("model", pa.string(), "fingerprint of the generator"),
    Column("model_name", pa.string(), "original, specialised or champion"),
    Column("prompt_name", pa.string(), "plain, best, or the strategy that wrote the prompt"),
    Column("candidate", pa.string(), "the candidate whose prompt it is"),
    Column("prompt", pa.string(), "the prompt"),
    Column("negative_prompt", pa.string(), "the negative prompt; empty for none"),
    Column("seed", pa.int64(), "derived from the product and the repeat"),
    Column("steps", pa.int32(), "denoising steps"),
    Column("guidance", pa.float32(), "classifier-free guidance scale"),
    Column("width", pa.int32(), "pixels"),
    Column("height", pa.int32(), "pixels"),
    Column("reference", pa.string(), "the photo it is compared with"),
    Column("product_group", pa.string(), "product group of that photo: the unit of the bootstrap"),
    Column("split", pa.string(), "split of that photo"),
    Column("purpose", pa.string(), "what the image was drawn for: search, dev, test, seeds (more of dev) or others"),
)

_SCORES = (
    Column("model", pa.string(), "original, specialised, champion, or photos for the photos themselves"),
    Column("prompt", pa.string(), "plain, best, others (plain prompts of other styles), or photos"),
    Column("measure", pa.string(), "what is measured: docs/evaluation.md explains each"),
    Column("scope", pa.string(), "product, or set for a measure of all samples together"),
    Column("split", pa.string(), "dev or test"),
    Column("product_group", pa.string(), "the product; none for a set", nullable=True),
    Column("value", pa.float32(), "mean cosine, or what the measure says"),
    Column("low", pa.float32(), "lower end of the 95 % interval of a set's value", nullable=True),
    Column("high", pa.float32(), "upper end of the 95 % interval of a set's value", nullable=True),
    Column("anchored", pa.float32(), "a cosine, anchored", nullable=True),
)

_COLUMNS: dict[str, tuple[Column, ...]] = {
    "images": (
        Column("id", pa.string(), "content hash of the file: the photo's identity"),
        Column("product", pa.string(), "product key: the manifest's id, or the content hash"),
        Column("product_group", pa.string(), "key of the product that founded the group of near-duplicates"),
        Column("split", pa.string(), "search, dev or test: one for the whole product group"),
        Column("path", pa.string(), "where the photo lies, below the folder of its source"),
        Column("width", pa.int32(), "pixels, after rotation"),
        Column("height", pa.int32(), "pixels, after rotation"),
        Column("bytes", pa.int64(), "file size"),
        Column("perceptual_hash", pa.uint64(), "64-bit DCT hash for near-duplicate detection"),
        Column("thumbnail", pa.binary(), "16 x 16 RGB bytes for near-duplicate detection"),
        Column("attributes", _ATTRIBUTES, "attributes that came with the photo"),
        Column("caption", pa.string(), "caption that came with the photo", nullable=True),
    ),
    "rejects": (
        Column("path", pa.string(), "the file or manifest row that was not taken"),
        Column("reason", pa.string(), "what is wrong with it and how to mend it"),
    ),
    "features": (
        Column(
            "id", pa.string(), "photo, photo:shuffled-4 for its shuffled pieces, photo:<hash> as an autoencoder has it"
        ),
        Column("role", pa.string(), "encoder (chooses), judge (only evaluates), or colour (16 x 16 pixels)"),
        Column("model", pa.string(), "fingerprint of the model that made the embedding"),
        Column("embedding", _EMBEDDING, "unit vector; colours: from 0 to 1"),
    ),
    "attributes": (
        Column("id", pa.string(), "photo"),
        Column("facet", pa.string(), "the question: garment, colour, audience, ..."),
        Column("value", pa.string(), "the answer"),
        Column("probability", pa.float32(), "zero-shot probability among the facet's values, 0 to 1"),
    ),
    "candidates": (
        Column("id", pa.string(), "hash of prompt, negative prompt and guidance"),
        Column("strategy", pa.string(), "the rule that wrote the prompt"),
        Column("prompt", pa.string(), "the prompt"),
        Column("negative_prompt", pa.string(), "the negative prompt; empty for none"),
        Column("guidance", pa.float64(), "guidance scale; none: as the profile says", nullable=True),
        Column("phrases", _PHRASES, "the attribute phrases in the prompt"),
        Column("dropped", _PHRASES, "phrases left out so that the prompt fits the text encoder"),
        Column("parent", pa.string(), "candidate it was derived from", nullable=True),
        Column("text_similarity", pa.float32(), "mean cosine of the prompt to the style's search photos"),
    ),
    "samples": _SAMPLES,
    "sample_features": (
        Column("id", pa.string(), "sample"),
        Column("role", pa.string(), "encoder or judge"),
        Column("model", pa.string(), "fingerprint of the model that made the embedding"),
        Column("embedding", _EMBEDDING, "unit vector"),
    ),
    "similarities": (
        Column("sample", pa.string(), "the sample"),
        Column("reference", pa.string(), "the photo"),
        Column("role", pa.string(), "encoder or judge"),
        Column("model", pa.string(), "fingerprint of that encoder or judge"),
        Column("cosine", pa.float32(), "cosine of the two embeddings, -1 to 1"),
        Column("anchored", pa.float32(), "0: mean of real pairs across styles, 1: within the style", nullable=True),
    ),
    "leaderboard": (
        Column("candidate", pa.string(), "the candidate"),
        Column("strategy", pa.string(), "the rule that wrote the prompt"),
        Column("prompt", pa.string(), "the prompt"),
        Column("negative_prompt", pa.string(), "the negative prompt; empty for none"),
        Column("guidance", pa.float64(), "guidance scale; none: as the profile says", nullable=True),
        Column("images", pa.int32(), "images the score rests on"),
        Column("products", pa.int32(), "products they were drawn for: the n of the interval"),
        Column("mean", pa.float32(), "mean encoder cosine on search photos"),
        Column("low", pa.float32(), "lower end of its 95 % interval", nullable=True),
        Column("high", pa.float32(), "upper end of its 95 % interval", nullable=True),
        Column("rung", pa.int32(), "rounds of halving it survived; -1 for one that only earlier searches drew"),
    ),
    "explored": (
        Column("candidate", pa.string(), "the prompt that was looked at"),
        Column("strategy", pa.string(), "word (one alone), grown (from others, by drawing), or the rule that wrote it"),
        Column("prompt", pa.string(), "the prompt"),
        Column("negative_prompt", pa.string(), "the negative prompt; empty for none"),
        Column("phrases", _PHRASES, "the words it names"),
        Column("parent", pa.string(), "the candidate that it was grown from", nullable=True),
        Column("images", pa.int32(), "images of few steps that the score rests on, with the same seeds for all"),
        Column("score", pa.float32(), "their mean encoder cosine to all search photos"),
    ),
    "formats": (
        Column("format", pa.string(), "the rule that wrote a prompt for each photo from its own attributes"),
        Column("images", pa.int32(), "images the score rests on"),
        Column("products", pa.int32(), "products they were drawn for: the n of the interval"),
        Column("mean", pa.float32(), "mean encoder cosine of each photo to what its own prompt drew"),
        Column("low", pa.float32(), "lower end of its 95 % interval", nullable=True),
        Column("high", pa.float32(), "upper end of its 95 % interval", nullable=True),
        Column("rung", pa.int32(), "rounds of halving it survived"),
    ),
    "phrases": (
        Column("phrase", pa.string(), "words that some candidates of the search name and others do not"),
        Column("candidates", pa.int32(), "candidates that name it"),
        Column("products", pa.int32(), "photos that candidates with and without it were drawn for"),
        Column("gain", pa.float32(), "mean cosine of candidates with it minus without it, on the same photos"),
        Column("low", pa.float32(), "lower end of its 95 % interval", nullable=True),
        Column("high", pa.float32(), "upper end of its 95 % interval", nullable=True),
    ),
    "progress": (
        Column("images", pa.int32(), "images compared so far, in the order of drawing"),
        Column("gain", pa.float32(), "the leader's mean cosine over that of the plain prompt, on the same photos"),
        Column("candidate", pa.string(), "the leader"),
    ),
    "training_pairs": (
        Column("id", pa.string(), "photo or sample"),
        Column("origin", pa.string(), "reference (a photo) or sample (a generated image)"),
        Column("path", pa.string(), "as table images lists it; empty for a sample"),
        Column("caption", pa.string(), "the caption it is trained with"),
        Column("kept", pa.bool_(), "true: curated; false: the random control of equal size"),
        Column("score", pa.float32(), "what it was ranked by: cosine to the style's search photos"),
        Column("why", pa.string(), "why it was taken"),
    ),
    "training_log": (
        Column("step", pa.int32(), "optimizer step"),
        Column("loss", pa.float32(), "mean training loss since the previous row; none at step 0", nullable=True),
        Column("held_out_loss", pa.float32(), "loss on dev photos with fixed noise", nullable=True),
        Column("learning_rate", pa.float32(), "learning rate at the step"),
        Column("gradient_norm", pa.float32(), "gradient norm before clipping", nullable=True),
        Column("similarity", pa.float32(), "cosine of images drawn then to the validation photos", nullable=True),
    ),
    "evaluation_samples": _SAMPLES,
    "nearest": (
        Column("sample", pa.string(), "the sample"),
        Column("photo", pa.string(), "the training photo that it is nearest to"),
        Column("by", pa.string(), "judge (1 - cosine) or colour (of 16 x 16 pixels)"),
        Column("distance", pa.float32(), "0 for the same"),
        Column("limit", pa.float32(), "99 of 100 photos never trained on are further from all training photos"),
        Column("copied", pa.bool_(), "nearer than the limit"),
    ),
    "prompt_scores": _SCORES,
    "scores": _SCORES,
}

TABLES: tuple[str, ...] = tuple(_COLUMNS)
"""Names of all tables, in the order in which the chain fills them."""

_COLUMNS["looks"] = (
    Column("prompt", pa.string(), "the prompt"),
    Column("negative_prompt", pa.string(), "the negative prompt; empty for none"),
    Column("images", pa.int32(), "images drawn, with the first so many of the common seeds"),
    Column("embedding", _EMBEDDING, "mean of their unit embeddings"),
    Column("thumbnail", pa.binary(), "the first of them as WebP, in the row of the fewest images", nullable=True),
)  # of no style: what a base draws serves all of them


def columns(table: str) -> tuple[Column, ...]:
    """The columns of a table. Raises KeyError for an unknown table."""
    return _COLUMNS[table]


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table, with descriptions and the schema version as metadata."""
    fields = [
        pa.field(c.name, c.type, nullable=c.nullable, metadata={"description": c.description}) for c in columns(table)
    ]
    return pa.schema(fields, metadata={"fashion_pipeline.schema_version": str(SCHEMA_VERSION)})


def rows_to_table(table: str, rows: list[dict[str, object]]) -> pa.Table:
    """Rows as an Arrow table of the right schema; raises pyarrow.ArrowInvalid or TypeError where one does not fit."""
    return pa.Table.from_pylist(rows, schema=schema(table))
