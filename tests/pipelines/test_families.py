"""What families say of pipelines, against the pipelines themselves."""

from __future__ import annotations

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLImageProcessor

from autotune.core.errors import InputError
from autotune.cost.flops import weightless
from autotune.pipelines.families import GenericFamily, LatentSize, family_of, supported
from tests.support.builders import FAMILIES, TinyFamily
from tests.support.replay import Call, same

# Pipelines whose denoiser is also given something that depends on the size besides the latents.
CONDITIONED = ["sdxl", "pixart-alpha-1024", "flux", "flux-dev", "hunyuandit", "qwen-image", "cogview4", "kandinsky5"]


# Full sizes to shrink, where half of the other size is none that the pipeline takes.
DOUBLE = {"sana": (64, 64)}


@functools.cache
def _call(name: str, guidance: bool = True, batch: int = 1) -> Call:
    return Call(FAMILIES[name], guidance=guidance, batch=batch)


def _rows(sample: Any) -> int:
    return len(sample)


def _flops(run: Any) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return int(counter.get_total_flops())


def _size(call: Call) -> LatentSize:
    return call.family.size_of(call.sample, call.kwargs)


@pytest.mark.exhaustive  # the conformance suite counts under policies, the one that does nothing among them
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_inputs_cost_what_the_pipeline_executes(name: str) -> None:
    tiny = FAMILIES[name]
    if tiny.perturbed:
        pytest.skip("what perturbs rows is on the denoiser while a call lasts")
    call = _call(name, batch=2)
    denoiser: Any = call.denoiser
    skeleton = weightless(denoiser)
    with torch.device("meta"):
        inputs = call.family.inputs(denoiser.config, _size(call), tiny.text_tokens)
    predicted = _flops(lambda: skeleton(**inputs))
    assert predicted > 0
    assert _flops(call) == predicted * _rows(call.sample)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_inputs_have_the_arguments_and_shapes_of_the_pipelines(name: str) -> None:
    tiny = FAMILIES[name]
    call = _call(name, guidance=False)
    with torch.device("meta"):
        inputs = call.family.for_call(False).inputs(call.denoiser.config, _size(call), tiny.text_tokens)
    parameters = inspect.signature(call.denoiser.forward).parameters
    given = dict(zip(parameters, call.args, strict=False)) | call.kwargs
    ignored = {"return_dict", "joint_attention_kwargs", "attention_kwargs", "cross_attention_kwargs"}
    used = {key: value for key, value in given.items() if value is not None and key not in ignored}
    assert {key for key in used if tree_leaves(used[key]) != [None] * len(tree_leaves(used[key]))} >= {
        key for key, value in inputs.items() if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
    }
    for key, value in inputs.items():
        shapes = [leaf.shape for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        real = [leaf.shape for leaf in tree_leaves(given[key]) if isinstance(leaf, Tensor)]
        if key not in ("timestep", "t"):
            assert shapes == real, key


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_sizes_and_tokens_are_those_of_the_call(name: str) -> None:
    tiny = FAMILIES[name]
    call = _call(name)
    arguments = tiny.arguments()
    height, width = tiny.size
    assert call.family.latent_size(call.pipe, height, width, tiny.frames, call=arguments) == _size(call)
    if name == "generic":
        call.pipe.tokenizer.model_max_length = tiny.text_tokens
    tokens = call.family.text_tokens(call.pipe, arguments)
    # Pipelines that do not pad their prompts: no more than that many.
    assert tokens >= tiny.text_tokens if name.startswith(("qwen-image", "z-image")) else tokens == tiny.text_tokens
    if tiny.other_size is not None:
        height, width = tiny.other_size
        other = Call(tiny, height=height, width=width)
        assert call.family.latent_size(call.pipe, height, width, tiny.frames, call=arguments) == _size(other)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_what_is_said_of_guidance(name: str) -> None:
    tiny = FAMILIES[name]
    call = _call(name, batch=2)
    assert call.family.component == tiny.denoiser
    rows = _rows(call.sample)
    if tiny.guidance != "none":
        assert call.family.branches == tiny.guidance
        assert tiny.guidance == "separate" or call.family.conditional_first == tiny.conditional_first
    assert rows == 2 * ((tiny.branches if tiny.guidance == "batched" else 1) + tiny.perturbed)
    if not hasattr(call.pipe, "prepare_latents"):
        assert call.family.pictures(call.denoiser, rows, call.kwargs) == 2
        unguided = _call(name, batch=2, guidance=False)
        assert unguided.family.pictures(unguided.denoiser, 2, unguided.kwargs) == 2


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_arguments_that_are_not_shared_have_a_row_per_sample(name: str) -> None:
    call = Call(FAMILIES[name], batch=3)
    rows = _rows(call.sample)
    per_sample = {key: value for key, value in call.kwargs.items() if key not in call.family.shared_arguments}
    leaves = [leaf for leaf in tree_leaves(per_sample) if isinstance(leaf, Tensor) and leaf.ndim]
    lists = [value for value in per_sample.values() if isinstance(value, list)]
    tensors_in_lists = {id(leaf) for leaf in tree_leaves(lists)}
    assert all(len(leaf) == rows for leaf in leaves if id(leaf) not in tensors_in_lists)
    # A sample each, as Z-Image has them, or tensors that have a row per sample, as ControlNets make them.
    assert all(len(value) == rows or all(len(leaf) == rows for leaf in value) for value in map(tree_leaves, lists))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_packing_round_trip(name: str) -> None:
    if "resolution" in FAMILIES[name].refuses:
        pytest.skip("always of full size")
    call = _call(name, guidance=False)
    size = _size(call)
    latents = call.sample if isinstance(call.sample, Tensor) else torch.stack(call.sample)
    spatial = call.family.spatial(latents, size)
    assert spatial.shape[-2:] == (size.height, size.width)
    again = call.family.packed(spatial, size)
    assert torch.equal(again, latents if latents.shape == again.shape else latents.squeeze(2))


@pytest.mark.parametrize("name", ["flux", "qwen-image"])
def test_packing_is_the_pipelines(name: str) -> None:
    pipe = FAMILIES[name].make()
    latents = torch.randn(2, 4, 8, 12)
    family, size = family_of(pipe), LatentSize(8, 12)
    packed = pipe._pack_latents(latents, 2, 4, 8, 12)
    assert torch.equal(family.packed(latents, size), packed)
    assert torch.equal(family.spatial(packed, size), latents)


def _resized(name: str, tiny: TinyFamily, **overrides: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The full call's arguments resized to half the size, and the pipeline's own at that size."""
    height, width = DOUBLE.get(name) or tiny.other_size or tiny.size
    call = Call(tiny, height=height, width=width, **overrides)
    small = Call(tiny, height=height // 2, width=width // 2, **overrides)
    before = dict(call.kwargs)
    resized = call.family.resized_arguments(call.denoiser, call.kwargs, _size(small), _size(call))
    assert same(before, call.kwargs), "the pipeline's own arguments are left alone"
    return resized, small.kwargs


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_resized_arguments_are_those_of_the_pipeline_at_that_size(name: str) -> None:
    tiny = FAMILIES[name]
    if "resolution" in tiny.refuses:
        pytest.skip("always of full size")
    if tiny.other_size is None or (tiny.strength is not None and not tiny.inpaint):
        pytest.skip("one size, or the picture's")
    # The smaller picture shows what the large one shows: SDXL's original size stays.
    overrides = {"original_size": (32, 32)} if name.startswith(("sdxl", "cogview4")) else {}
    resized, own = _resized(name, tiny, **overrides)
    assert resized.keys() == own.keys()
    for key in own:
        if key not in ("sample", "hidden_states", "x", "encoder_hidden_states"):
            left = [leaf for leaf in tree_leaves(resized[key]) if isinstance(leaf, Tensor)]
            right = [leaf for leaf in tree_leaves(own[key]) if isinstance(leaf, Tensor)]
            assert [leaf.dtype for leaf in left] == [leaf.dtype for leaf in right], key
            assert all(torch.allclose(a, b) for a, b in zip(left, right, strict=True)), key
            if not right:
                assert resized[key] == own[key], key


@pytest.mark.parametrize("name", CONDITIONED)
def test_size_conditioning_does_change(name: str) -> None:
    call = _call(name)
    full = _size(call)
    resized = call.family.resized_arguments(
        call.denoiser, call.kwargs, LatentSize(full.height // 2, full.width // 2), full
    )
    assert any(str(resized[key]) != str(call.kwargs[key]) for key in resized)


def test_wan_with_a_timestep_for_every_token() -> None:
    tiny = FAMILIES["wan"]
    pipe = tiny.make()
    pipe.register_to_config(expand_timesteps=True)
    family = family_of(pipe)
    size = LatentSize(16, 16, 2)
    with torch.device("meta"):
        assert family.inputs(pipe.transformer.config, size, 8)["timestep"].shape == (1, 128)
    resized = family.resized_arguments(
        pipe.transformer, {"timestep": torch.full((2, 128), 7.0)}, LatentSize(8, 8, 2), size
    )
    assert torch.equal(resized["timestep"], torch.full((2, 32), 7.0))


def test_wan_with_two_transformers_is_refused() -> None:
    pipe = FAMILIES["wan"].make()
    pipe.register_modules(transformer_2=pipe.transformer)
    with pytest.raises(InputError, match="two transformers"):
        family_of(pipe).denoiser(pipe)


@pytest.mark.parametrize(
    ("name", "native"), [("sd", (32, 32)), ("flux", (256, 256)), ("z-image", (1024, 1024)), ("kandinsky5", (128, 128))]
)
def test_native_sizes(name: str, native: tuple[int, int]) -> None:
    pipe = FAMILIES[name].make()
    assert family_of(pipe).native_size(pipe) == native


def test_a_picture_in_the_prompt_has_the_tokens_that_its_processor_makes_of_its_shape() -> None:
    """As published: patches of 14 x 14 pixels, four of which become a token, and no bound that is reached."""
    pipe = FAMILIES["qwen-image-edit"].make()
    pipe.processor.image_processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=12845056)
    family = family_of(pipe)
    assert family.native_size(pipe) == (1024, 1024)
    assert family.text_tokens(pipe) == 512 + 37 * 37
    assert family.text_tokens(pipe, {"height": 832, "width": 1248, "max_sequence_length": 64}) == 64 + 30 * 45
    # Of a result that is larger or smaller the picture is read at the same size.
    assert family.text_tokens(pipe, {"height": 512, "width": 512}) == 512 + 37 * 37
    with torch.device("meta"):
        inputs = family.inputs(pipe.transformer.config, LatentSize(26, 38), 8)
    assert inputs["img_shapes"] == [[(1, 13, 19), (1, 13, 19)]]
    pipe.processor = None
    assert family.text_tokens(pipe) == 512


def test_wan_native_size_and_frames() -> None:
    pipe = FAMILIES["wan"].make()
    family = family_of(pipe)
    assert family.native_size(pipe) == (480, 832)
    assert family.default_frames(pipe) == 81
    scale = pipe.vae_scale_factor_temporal
    assert family.latent_size(pipe, 64, 64, 4 * scale).frames == 5


@pytest.mark.parametrize(
    ("name", "sample_size", "scale", "asked", "made"),
    [
        ("pixart-alpha", 128, 8, (1000, 1000), (1024, 1024)),
        ("pixart-sigma", 256, 8, (2048, 2040), (2048, 2048)),
        ("sana", 32, 32, (700, 1400), (704, 1408)),
        ("hunyuandit", 128, 8, (1000, 1000), (1024, 1024)),
    ],
)
def test_sizes_are_binned_as_the_pipelines_do(
    name: str, sample_size: int, scale: int, asked: tuple[int, int], made: tuple[int, int]
) -> None:
    pipe = FAMILIES[name].make()
    pipe.transformer.register_to_config(sample_size=sample_size)
    pipe.default_sample_size = sample_size
    pipe.vae_scale_factor = scale
    family = family_of(pipe)
    expected = LatentSize(made[0] // scale, made[1] // scale)
    assert family.latent_size(pipe, *asked) == expected
    plain = family.latent_size(pipe, *asked, call={"use_resolution_binning": False})
    unit = scale * family.rounding
    assert plain == LatentSize(*(side // unit * family.rounding for side in asked))


@pytest.mark.parametrize("asked", [(1024, 1024), (512, 512), (1000, 700), (720, 1280), (1408, 640), (300, 1300)])
def test_kandinsky_makes_the_sizes_of_its_list(asked: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def stop(self: Any, *, height: int, width: int, **rest: Any) -> None:
        raise Asked(height, width)

    monkeypatch.setattr(diffusers.Kandinsky5T2IPipeline, "prepare_latents", stop)
    tiny = FAMILIES["kandinsky5"]
    # With the list that pipelines have when they are loaded.
    pipe = diffusers.Kandinsky5T2IPipeline(**tiny.make().components)
    family = family_of(pipe)
    assert family.native_size(pipe) == (1024, 1024)
    with pytest.raises(Asked) as made:
        pipe(**tiny.arguments() | {"height": asked[0], "width": asked[1]})
    assert family.latent_size(pipe, *asked) == LatentSize(*(side // 8 for side in made.value.args))


def test_classes_derived_from_a_known_one_and_unknown_ones_with_a_known_denoiser() -> None:
    class Mine(StableDiffusionPipeline):  # type: ignore[misc]
        pass

    known = FAMILIES["sd"].make()
    mine = Mine(**known.components, requires_safety_checker=False)
    assert type(family_of(mine)) is type(family_of(known))
    flux = FAMILIES["flux"].make()
    other = SimpleNamespace(transformer=flux.transformer)
    assert type(family_of(other)) is type(family_of(flux))
    assert isinstance(family_of(FAMILIES["generic"].make()), GenericFamily)


def test_a_pipeline_without_a_denoiser_is_refused() -> None:
    with pytest.raises(InputError, match="has neither a unet nor a transformer; supported pipelines: AuraFlowPipeline"):
        family_of(SimpleNamespace(vae=nn.Identity()))


def test_a_pipeline_loaded_without_its_denoiser_is_refused() -> None:
    pipe = FAMILIES["flux"].make()
    pipe.transformer = None
    with pytest.raises(InputError, match="FluxPipeline has no transformer: load the pipeline with its transformer"):
        family_of(pipe).denoiser(pipe)


def test_tokens_of_other_pictures_are_refused() -> None:
    call = Call(FAMILIES["flux"])
    with pytest.raises(InputError, match="tokens of other pictures are not supported"):
        call.family.size_of(torch.cat([call.sample, call.sample], dim=1), call.kwargs)


def test_a_generic_denoiser_with_an_unknown_argument_is_refused() -> None:
    pipe = FAMILIES["generic"].make()

    def forward(hidden_states: Tensor, camera: Tensor) -> Tensor:
        return hidden_states + camera

    pipe.transformer.forward = forward
    with pytest.raises(InputError, match="argument 'camera' has no shape that is known"):
        family_of(pipe).inputs(pipe.transformer.config, LatentSize(4, 4), 8)


def test_a_tokenizer_that_does_not_say_its_length_is_refused() -> None:
    pipe = FAMILIES["generic"].make()
    # What transformers puts where a tokenizer names none.
    pipe.tokenizer.model_max_length = int(1e30)
    with pytest.raises(InputError, match="set pipe.tokenizer.model_max_length"):
        family_of(pipe).text_tokens(pipe)


def test_a_compiled_denoiser_keeps_its_family() -> None:
    pipe = FAMILIES["sd"].make()
    plain = family_of(pipe)
    size = plain.native_size(pipe)
    pipe.unet = torch.compile(pipe.unet)
    assert family_of(pipe).native_size(pipe) == size


def test_supported_names_every_pipeline_once() -> None:
    names = [name for name, _, _ in supported()]
    assert len(set(names)) == len(names)
    assert FluxPipeline.__name__ in names
    made = {type(tiny.make()).__name__ for tiny in FAMILIES.values()}
    assert made - set(names) == {"GenericPipeline"}


def test_an_ip_adapter_that_reads_more_than_an_embedding_has_no_price() -> None:
    pipe = FAMILIES["sd-ip-adapter"].make()
    pipe.unet.encoder_hid_proj.image_projection_layers[0] = nn.Identity()
    with pytest.raises(InputError, match="price is not known of IP-Adapters that read more of a picture"):
        family_of(pipe).inputs(pipe.unet.config, LatentSize(4, 4), 16)
