"""What tiny pipelines are made of: tokenizers, text encoders, autoencoders, schedulers of diffusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.support.builders.tiny_family import CLIP_TOKENS, NEGATIVE, PROMPTS

WIDTH = 32
VOCABULARY = 64

QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _words() -> list[str]:
    return sorted({word for text in (*PROMPTS, NEGATIVE) for word in text.split()})


# Made anew for every pipeline: a tokenizer is told to pad and truncate by changing its state, so pipelines that share
# one may not run in several threads.
def clip_tokenizer() -> CLIPTokenizer:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    merges: list[tuple[str, str]] = []
    for word in _words():
        letters = [*word[:-1], word[-1] + "</w>"]
        merges += [("".join(letters[:cut]), letters[cut]) for cut in range(1, len(letters))]
    merges = list(dict.fromkeys(merges))
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def word_tokenizer(end: bool, special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a word, also of those that are ``special``, and with ``end`` one for the end of the text, as T5's."""
    template = "system Describe the image by detailing color shape size texture quantity text spatial relationships of"
    template += " objects and background user assistant im_start im_end <| |> :<| , < > Prompt Start"
    vocabulary = dict.fromkeys(["<pad>", "</s>", "<unk>", *_words(), *template.split()])
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def clip(projected: bool = False, tokens: int = CLIP_TOKENS) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        projection_dim=16,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        # A fresh CLIP scales its weights down so far that prompts would hardly differ.
        initializer_factor=10.0,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5(kind: str = "t5") -> Any:
    configs, encoders = {"t5": T5Config, "umt5": UMT5Config}, {"t5": T5EncoderModel, "umt5": UMT5EncoderModel}
    config = configs[kind](
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=1, num_heads=2, pad_token_id=0
    )
    return encoders[kind](config)


def language_model(config_class: Any, model_class: Any, layers: int = 2) -> Any:
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return model_class(config)


def autoencoder_kl(channels: int = 4, levels: int = 2, **changes: Any) -> AutoencoderKL:
    """An autoencoder that shrinks each side by 2 to the power of levels - 1."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        force_upcast=False,
        **changes,
    )


def qwen_vl(tokenizer: Any = None, **vision_changes: Any) -> Any:
    """With the tokenizer that it is to know the tokens of pictures by, and changes of how it sees them."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        # Frequencies for time, height and width, of the half of a head's width.
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
        **vision_changes,
    }
    numbers = range(VOCABULARY - len(QWEN_TOKENS), VOCABULARY)
    if tokenizer is not None:
        numbers = tokenizer.convert_tokens_to_ids(QWEN_TOKENS)
    names = ("vision_start", "vision_end", "image", "video")
    tokens = {f"{name}_token_id": number for name, number in zip(names, numbers, strict=True)}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))


def beta_schedule() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim_scheduler() -> DDIMScheduler:
    return DDIMScheduler(**beta_schedule(), steps_offset=1, clip_sample=False, set_alpha_to_one=False)
