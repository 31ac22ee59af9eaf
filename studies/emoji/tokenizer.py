"""A CLIP tokenizer with a small vocabulary, shared by the pipelines and by the scoring CLIP."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

VOCABULARY = 2048
CONTEXT_LENGTH = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Byte-pair encoding as in CLIP, learned from the captions; any other text still encodes, byte by byte.

    The end token gets the highest id because CLIP reads its text feature at ``argmax``.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    bpe.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    learned = sorted(bpe.get_vocab().items(), key=lambda item: item[1])
    vocabulary = {token: index for index, (token, _) in enumerate(learned)}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(byte + "</w>", len(vocabulary))
    vocabulary |= {START: len(vocabulary), END: len(vocabulary) + 1}
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)
