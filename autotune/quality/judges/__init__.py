"""Judges that people trust, by one name each: what they judge, where their files come from, and loading them.

A judge is of one of three kinds, which differ in what they are given:

- ``distribution``: pictures (n, 3, H, W) uint8 -> features (n, D), for a distance to reference features;
- ``preference``: pictures and n prompts -> scores (n,), higher is better;
- ``paired``: pictures and what they should look like -> errors (n,), lower is better, 0 for identical pairs.

Nothing is fetched but the files of a judge that is asked for by name; :mod:`autotune.quality.judges.files` says where
they lie. Importing this package loads no torch.

Example::

    score = measure("hpsv2", "cuda")
    score(pictures, prompts)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from autotune.core.errors import InputError, did_you_mean
from autotune.quality.judges.files import HubFile, find, known_as

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JUDGES", "HubJudge", "Kind", "fingerprint", "load_judge", "measure"]

Kind = Literal["distribution", "preference", "paired"]


@dataclass(frozen=True)
class HubJudge:
    """A judge as the registry has it.

    Attributes:
        kind: What it is given and gives, see the head of this package.
        loader: ``module:function`` of this package; the function takes the files' paths by name, a device and the most
            pictures per forward pass.
        about: What it judges, for people.
        files: What the Hub has of it.
        elsewhere: The file that torch's folder has of it instead or besides.
        megabytes: Of all files together, about.
    """

    kind: Kind
    loader: str
    about: str
    files: tuple[HubFile, ...] = ()
    elsewhere: str | None = None
    megabytes: int = 0


def _of(repository: str, *names: str | tuple[str, ...]) -> tuple[HubFile, ...]:
    return tuple(HubFile(repository, (name,) if isinstance(name, str) else name) for name in names)


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)

JUDGES: Mapping[str, HubJudge] = MappingProxyType(
    {
        "dinov2": HubJudge(
            "distribution",
            "distribution:load_dinov2",
            "objects and layout, in DINOv2's features, which agree best with people among feature networks",
            files=_of("timm/vit_large_patch14_dinov2.lvd142m", "config.json", _WEIGHTS),
            megabytes=1220,
        ),
        "clip": HubJudge(
            "distribution",
            "distribution:load_clip",
            "content and style, in the features of LAION's CLIP ViT-B/32",
            files=_of("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_config.json", _OPEN_CLIP_WEIGHTS),
            megabytes=605,
        ),
        "inception": HubJudge(
            "distribution",
            "distribution:load_inception",
            "objects of ImageNet, in the features of the published FID",
            elsewhere="weights-inception-2015-12-05-6726825d.pth",
            megabytes=95,
        ),
        "hpsv2": HubJudge(
            "preference",
            "clip_h:load_hpsv2",
            "which picture people choose for a prompt: HPS v2.1",
            files=_of("xswu/HPSv2", "HPS_v2.1_compressed.pt"),
            megabytes=3945,
        ),
        "pickscore": HubJudge(
            "preference",
            "clip_h:load_pickscore",
            "which picture people choose for a prompt: PickScore v1",
            files=_of("yuvalkirstain/PickScore_v1", "config.json", _WEIGHTS),
            megabytes=3945,
        ),
        "imagereward": HubJudge(
            "preference",
            "imagereward:load_imagereward",
            "which picture people rate higher for a prompt: ImageReward v1.0; hardly reacts to sharpness",
            files=(
                *_of("THUDM/ImageReward", "ImageReward.pt", "med_config.json"),
                *_of("google-bert/bert-base-uncased", "vocab.txt"),
            ),
            megabytes=1790,
        ),
        "lpips": HubJudge(
            "paired",
            "perceptual:load_lpips",
            "how different two pictures look, in AlexNet: LPIPS",
            elsewhere="alexnet-owt-7be5be79.pth",
            megabytes=233,
        ),
        "dists": HubJudge(
            "paired",
            "perceptual:load_dists",
            "structure and texture of two pictures, in VGG-16: DISTS",
            elsewhere="vgg16-397923af.pth",
            megabytes=528,
        ),
    }
)
"""All of them by name."""


def load_judge(name: str, device: str = "cpu", *, batch_size: int = 16) -> Any:
    """Load a judge, fetching its files if need be.

    Args:
        name: One of :data:`JUDGES`.
        device: Where it runs.
        batch_size: Most pictures per forward pass.

    Returns:
        A :class:`~autotune.quality.extractor.FeatureNetwork`, a
        :class:`~autotune.quality.judges.measures.PreferenceJudge` or a
        :class:`~autotune.quality.judges.measures.PairedJudge`, by the judge's kind.

    Raises:
        InputError: There is no such judge, or its files or packages cannot be had.
    """
    judge = _named(name)
    files = find(name, judge.files)
    module, _, function = judge.loader.partition(":")
    load = getattr(import_module(f"{__name__}.{module}"), function)
    return load(files, device, batch_size)


def measure(name: str, device: str = "cpu", *, batch_size: int = 16) -> Callable[..., Tensor]:
    """What :func:`load_judge` loads, as a function of the form that its kind has, whatever the class.

    Raises:
        InputError: There is no such judge, or its files or packages cannot be had.
    """
    judge = load_judge(name, device, batch_size=batch_size)
    function: Callable[..., Tensor] = judge.image_features if JUDGES[name].kind == "distribution" else judge
    return function


def fingerprint(name: str) -> str:
    """The judge's name and, where it has files of the Hub, after an ``@`` what is in them.

    Raises:
        InputError: There is no such judge, or its files cannot be had.
    """
    files = _named(name).files
    return known_as(name, find(name, files).values()) if files else name


def _named(name: str) -> HubJudge:
    if name not in JUDGES:
        raise InputError(f"there is no judge called {name!r}{did_you_mean(name, JUDGES)}")
    return JUDGES[name]
