"""A tiny random-weight stock pipeline of every supported family, built from configs alone.

``FAMILIES`` maps a name to a :class:`TinyFamily`, which knows how to build the pipeline and how to
call it. Weights are random but not degenerate: parameters that a fresh model sets to zero are drawn
anew, so that the output depends on the prompt and on every block.
"""

from tests.support.builders.tiny_family import FAMILIES, LONG_NEGATIVE, NEGATIVE, PROMPTS, TinyFamily, returned

# isort: off
# Each enters its families, in the order in which tests list them.
from tests.support.builders.unets import sd_img2img
from tests.support.builders import diffusion_transformers, sd3_and_flux, flow_transformers  # noqa: F401
from tests.support.builders.unlisted import GenericPipeline, GenericTransformer
from tests.support.builders import conditioned  # noqa: F401

# isort: on

__all__ = [
    "FAMILIES",
    "LONG_NEGATIVE",
    "NEGATIVE",
    "PROMPTS",
    "GenericPipeline",
    "GenericTransformer",
    "TinyFamily",
    "returned",
    "sd_img2img",
]
