"""A tiny random open_clip model on disk, as a user's own would lie there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ("noto", "fluent", "red", "green", "apple", "dog", "moon", "tram")
IMAGE_SIZE = 32


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with configuration, weights and tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<unk>", *WORDS, "<end>"))}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<end>")
    tokenizer.save_pretrained(folder)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": IMAGE_SIZE, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "local",
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess_cfg = {"size": IMAGE_SIZE, "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    )
    torch.manual_seed(0)
    save_file(CLIP(**model_cfg).state_dict(), folder / "open_clip_model.safetensors")
    return folder
