"""What Python may give where the shell names a model or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from autotune.quality import Gaussian, Reference
    from autotune.quality.extractor import Features, ImageFeatures

    class Request(Protocol):
        """A row that was read before, :class:`autotune.evaluation.inputs.Row`."""

        @property
        def arguments(self) -> Mapping[str, Any]: ...

    AnyInputs = Sequence[Request | Mapping[str, Any]] | str | os.PathLike[str]
    AnyNetwork = ImageFeatures | str | os.PathLike[str]
    AnyReference = Reference | Gaussian | str | os.PathLike[str]
    AnyScorer = Features | str | os.PathLike[str]
    Prompts = Sequence[str] | str | os.PathLike[str]
else:  # Those who read the declarations load no torch; they know the shell's types.
    AnyInputs = AnyNetwork = AnyReference = AnyScorer = Prompts = object
