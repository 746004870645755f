"""The small byte-level BPE tokenizer that encoder and generator each carry: copes with any text, 77 tokens long."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from tools.embedded_models.captions import FACETS, attributes_of, compose, question
from tools.embedded_models.photos import Photos
from tools.embedded_models.training import generator_for

MERGED_TOKENS = 700
LENGTH = 77
# Words of prompts that people and programs write, so that they are few tokens although no photo was labelled so.
COMMON_WORDS = """
striped stripes printed print plain solid checked checkered plaid floral dotted polka dots graphic logo
embroidered pattern cotton denim leather wool woollen silk linen polyester knitted suede canvas slim fit
regular loose tight sleeve sleeves long short sleeveless collar neck round crew button zip pocket hood modern
classic vintage elegant minimal luxury detailed sharp focus bright dark light soft colour color style fashion
catalog catalogue photograph photo product model wearing isolated clean simple background studio realistic
blurry low quality deformed watermark text
"""


def kept_tokenizer(folder: Path, texts: Callable[[], Iterable[str]]) -> CLIPTokenizer:
    """The tokenizer kept in `folder`, trained on `texts()` and kept there if new: learning breaks ties at random."""
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        train_tokenizer(texts()).save_pretrained(partial)
        partial.rename(folder)
    return CLIPTokenizer.from_pretrained(folder)


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A CLIPTokenizer of all 256 bytes, alone and at a word's end, and the merges learnt from `texts`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = CLIPTokenizer().backend_tokenizer.normalizer
    learner.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_TOKENS + 512, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in _merges_of(learner)]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def _merges_of(learner: Tokenizer) -> list[list[str]]:
    """The learnt merges in order; tokenizers only hands them out as JSON."""
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def corpus(photos: Photos, vocabulary: dict) -> list[str]:
    """Captions of the photos, every phrase in every template, and common prompt words."""
    rng: np.random.Generator = generator_for("tokenizer")
    texts = [compose(attributes, vocabulary, rng).text for attributes in attributes_of(photos, vocabulary)]
    for facet in FACETS:
        for phrases in vocabulary[facet].values():
            texts += [
                question(vocabulary, facet, phrase, t) for phrase in phrases for t in vocabulary["templates"][facet] * 3
            ]
    return texts + list(vocabulary["broader"]) * 5 + COMMON_WORDS.split() * 20
