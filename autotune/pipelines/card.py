"""``postdiff.json`` in a model's folder: what belongs to the model, so that it is tuned and run without options."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.core.errors import InputError
from autotune.core.package_files import inside, package_file
from autotune.core.records import Record, Text, read_document, refusal, validated
from autotune.policy import MAX_STEPS, ModelInfo

FILE = "postdiff.json"

_MOST_BYTES = 64_000
_PLACED = ("scorer", "reference", "prompts", "held_out")
# Of scorers that are no file here.
_HUB = "hf-hub:"


class ModelCard(Record):
    """What belongs to a model; each key may be left out.

    In the file the last four are paths from the model's folder, which they do not leave, or name files of this package
    (``postdiff:models/emoji-clip``). Once read they are whole paths.

    Attributes:
        full_steps: Denoising steps of the full run.
        guidance_scale: Of classifier-free guidance.
        call: Further arguments of every call of the pipeline.
        model: What policies record of the model.
        scorer: An open_clip model that judges, a folder; or ``hf-hub:OWNER/MODEL``.
        reference: Pictures as they should look, a folder; or their statistics, a file.
        prompts: To tune on, a file; a quarter of them is held out.
        held_out: Prompts that the model has never seen, a file, for the last round and for comparisons.
    """

    full_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance_scale: float | None = Field(default=None, ge=0)
    call: dict[str, Any] = {}
    model: ModelInfo | None = None
    scorer: Text | None = None
    reference: Text | None = None
    prompts: Text | None = None
    held_out: Text | None = None

    def check_files(self, given: Container[str] = ()) -> None:
        """Find out now whether what the card names is there, but for what is ``given`` by other means.

        Raises:
            InputError: a file or folder is missing.
        """
        for key in _PLACED:
            path = getattr(self, key)
            if key not in given and path is not None and not path.startswith(_HUB) and not Path(path).exists():
                raise InputError(f"{path}: is missing, and the model's {FILE} names it as {key}; restore it")


def read_card(folder: Path) -> ModelCard:
    """The card in a model's folder; an empty one where there is none.

    Raises:
        InputError: the file is no such card; one sentence that names the key.
    """
    path = folder / FILE
    if not path.is_file():
        return ModelCard()
    refuse = refusal(str(path), InputError)
    card = validated(ModelCard, read_document(path, _MOST_BYTES, "model", InputError), refuse)
    if card.held_out is not None and card.prompts is None:
        raise refuse("held_out needs prompts beside it; name a file of prompts to tune on")
    placed = {}
    for key in _PLACED:
        name: str | None = getattr(card, key)
        if name is None or (key == "scorer" and name.startswith(_HUB)):
            continue
        try:
            placed[key] = str(package_file(name) or inside(folder, name))
        except ValueError:
            raise refuse(f"{key} is {name!r}: name something in the model's folder, by its path from there") from None
    return card.model_copy(update=placed)
