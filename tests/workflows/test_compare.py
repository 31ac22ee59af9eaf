"""Comparisons in a world whose quality is a formula, and one of a real pipeline."""

from __future__ import annotations

import json
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import autotune
from autotune.core.errors import InputError, RunFailed
from autotune.core.interrupts import Interrupted
from autotune.evaluation.examples import SEEDS_APART, choose
from autotune.evaluation.generation import PictureMaker
from autotune.evaluation.inputs import rows_of_prompts
from autotune.evaluation.intent import exact_policy, levels_in
from autotune.models.shipped import demo_assets
from autotune.policy import CacheRule, Guidance, Interval, Policy, PolicyQuality
from autotune.quality import FIDELITY, Baseline, Evaluation, Gaussian, Objective, Reference, coarse
from autotune.quality.alignment import shuffled_alignment
from autotune.quality.fidelity import feature_distances, largest_psnr, measure_fidelity
from autotune.quality.lpips import Lpips
from autotune.results.comparison import Comparison, read_comparison
from autotune.runtime import full_policy
from autotune.runtime.apply import session_of
from autotune.workflows.compare import compare
from tests.support.fake_search import DIMENSIONS, PROMPTS, of_prompts, prompt_features

STEPS, SIDE, IMAGES, BATCH = 10, 32, 48, 16
NEAR, NEARER, FAR = Policy(steps=8), Policy(steps=9), Policy(steps=2)
NAMED = {"near": NEAR, "far": FAR}


class ColumnScorer:
    """Reads the features that :class:`Painted` wrote into the first columns of pixels."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images[:, 0, 0, :DIMENSIONS].float() - 128, dim=1)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        return prompt_features(prompts)


def painted(policy: Policy, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Pictures (n, 3, 32, 32), each a function of policy, prompt and seed alone: the fewer steps, the worse."""
    noise = torch.stack([torch.randn(DIMENSIONS, generator=torch.Generator().manual_seed(s)) for s in seeds])
    features = prompt_features(prompts) + (torch.ones(DIMENSIONS) + 0.3 * noise) / policy.steps
    pictures = torch.full((len(prompts), 3, SIDE, SIDE), 128, dtype=torch.uint8)
    pictures[..., :DIMENSIONS] = (128 + 40 * features).round().clamp(0, 255).to(torch.uint8)[:, None, None]
    return pictures


@dataclass
class Painted:
    """Takes the place of the pipeline. ``before`` is called with the number of calls so far and may raise."""

    before: Callable[[int, Policy], None] = lambda count, policy: None
    made: list[tuple[str, int]] = field(default_factory=list)
    alive: weakref.WeakSet[Tensor] = field(default_factory=weakref.WeakSet)
    most_alive: int = 0

    def __call__(
        self, policy: Policy, prompts: Sequence[str], seeds: Sequence[int], on_batch: Any = None
    ) -> Iterator[Tensor]:
        self.before(len(self.made), policy)
        self.made.append((policy.key, len(prompts)))
        pictures = painted(policy, prompts, seeds)
        self.alive.add(pictures)
        self.most_alive = max(self.most_alive, len(self.alive))
        yield pictures

    @property
    def count(self) -> int:
        return sum(pictures for _, pictures in self.made)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Painted:
    fake = Painted()
    monkeypatch.setattr(PictureMaker, "pictures", lambda maker, *args, **more: of_prompts(fake, *args, **more))
    return fake


def good() -> Reference:
    """What the full run's pictures look like with other seeds."""
    seeds = range(5000, 5000 + 20 * len(PROMPTS))
    return Reference.of(ColumnScorer().image_features(painted(Policy(steps=STEPS), PROMPTS * 20, seeds)), shrink=True)


@pytest.fixture
def arguments(pipe: Any, tmp_path: Path) -> dict[str, Any]:
    return {
        "pipe": pipe, "policies": NAMED, "prompts": PROMPTS, "images": IMAGES, "reference": good(),
        "scorer": ColumnScorer(), "steps": STEPS, "batch_size": BATCH, "run_dir": tmp_path / "run", "quiet": True,
        "judges": ["distance:1", "alignment:4"],
    }  # fmt: skip


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_the_public_name_is_this_function() -> None:
    assert autotune.compare is compare


def test_the_full_run_loses_exactly_nothing(pictures: Painted, arguments: dict[str, Any]) -> None:
    full = compare(**arguments).full
    nothing = Interval(value=0.0, low=0.0, high=0.0)
    assert full.quality.loss == full.quality.fidelity == nothing
    cap = round(largest_psnr(3 * SIDE * SIDE), 6)
    assert full.psnr == Interval(value=cap, low=cap, high=cap)
    assert full.ssim == Interval(value=1.0, low=1.0, high=1.0)
    assert (full.identical, full.cost.relative, full.policy.steps) == (1.0, 1.0, STEPS)


@pytest.mark.parametrize("batch_size", [5, 16, 100])
def test_scores_are_those_of_all_pictures_at_once(
    pictures: Painted, arguments: dict[str, Any], batch_size: int
) -> None:
    comparison = compare(**arguments | {"batch_size": batch_size})

    examples = choose(rows_of_prompts(PROMPTS), IMAGES, comparison.conditions.first_seed)
    scorer, text = ColumnScorer(), prompt_features(examples.prompts)
    whole = {
        name: painted(policy, *(examples.prompts, examples.seeds))
        for name, policy in (NAMED | {"full": Policy(steps=STEPS)}).items()
    }
    features = {name: scorer.image_features(each) for name, each in whole.items()}
    seen = {name: Evaluation.of(each, text) for name, each in features.items()}
    chance = shuffled_alignment(features["full"].double(), text.double())
    baseline = Baseline(seen["full"], scorer.image_features(coarse(whole["full"])), chance, examples.prompts)
    objective = Objective(good(), baseline)
    for run in comparison.runs:
        expected = objective.interval(seen[run.name])
        for score in ("loss", "distance", "alignment", "fidelity"):
            wanted, got = getattr(expected, score), getattr(run.quality, score)
            assert (got.value, got.low, got.high) == pytest.approx((wanted.value, wanted.low, wanted.high), abs=1e-6)
        nearness = measure_fidelity(whole[run.name], whole["full"])
        assert run.psnr.value == pytest.approx(nearness.mean_psnr, abs=1e-6)
        assert run.ssim.value == pytest.approx(nearness.mean_ssim, abs=1e-6)
        assert run.psnr.low < run.psnr.value < run.psnr.high and run.ssim.low < run.ssim.value < run.ssim.high
        assert 0 <= run.identical < 1
        # The same resamples as every other score's.
        alignment = seen[run.name].alignment
        assert alignment is not None and objective.mean(alignment) == expected.alignment
    difference = objective.verdict([seen["near"]], seen["far"]).difference
    (pair,) = comparison.pairs
    assert pair.difference.value == pytest.approx(difference.value, abs=1e-6)
    assert pair.difference.high == pytest.approx(difference.high, abs=1e-6)
    for kept, name in zip(comparison.previews, ("full", "near", "far"), strict=True):
        assert torch.equal(kept, whole[name][:8])
    assert comparison.preview_prompts == examples.prompts[:8]


@pytest.mark.parametrize("batch_size", [8, 16])
def test_errors_are_of_the_first_pictures_in_pairs_with_exact_runs(
    pictures: Painted, arguments: dict[str, Any], batch_size: int
) -> None:
    """Of guided policies with exact runs of the same guidance, which are made for as many pictures and no more."""
    guided = Policy(steps=8, guidance=Guidance(stop_step=4))
    panel = {"judges": ["distance:1", "error:2"], "error_pictures": 20, "batch_size": batch_size}
    comparison = compare(**arguments | panel | {"policies": {"near": NEAR, "guided": guided}})

    examples = choose(rows_of_prompts(PROMPTS), IMAGES, comparison.conditions.first_seed)
    half = exact_policy(guided, Policy(steps=STEPS), levels=levels_in(arguments["pipe"]))
    scorer = ColumnScorer()

    def features(policy: Policy, spoil: Callable[[Tensor], Tensor] = lambda pictures: pictures) -> Tensor:
        return scorer.image_features(spoil(painted(policy, examples.prompts, examples.seeds)))

    full = features(Policy(steps=STEPS))
    unit = feature_distances(features(Policy(steps=STEPS), coarse), full).mean()
    for run, exact in zip(comparison.runs, (Policy(steps=STEPS), half), strict=True):
        assert run.quality.error is not None
        # Of the first 20; how all of them differ from the full run's says how lucky these are.
        errors = feature_distances(features(run.policy), features(exact))[:20]
        changes = feature_distances(features(run.policy), full)
        first = changes[:20] - changes[:20].mean()
        slope = ((errors * first).sum() / first.square().sum()).clamp(0, 1)
        wanted = (errors.mean() + slope * (changes.mean() - changes[:20].mean())) / unit
        assert run.quality.error.value == pytest.approx(float(wanted), abs=1e-5)
    assert comparison.full.quality.error == Interval(value=0.0, low=0.0, high=0.0)
    assert comparison.conditions.weights == {"distance": 1, "error": 2}
    assert sum(count for key, count in pictures.made if key == half.key) == 20
    made = len(pictures.made)
    again = compare(**arguments | panel | {"policies": {"near": NEAR, "guided": guided}})
    assert len(pictures.made) == made and again.to_dict() == comparison.to_dict()


def test_a_number_per_picture_is_asked_for() -> None:
    full = Evaluation.of(ColumnScorer().image_features(painted(NEAR, PROMPTS, range(12))), prompt_features(PROMPTS))
    baseline = Baseline(full, full.features.roll(1, 0), torch.zeros(12), tuple(PROMPTS))
    objective = Objective(good(), baseline, weights=FIDELITY)
    with pytest.raises(ValueError, match=r"each of 12 pictures, not \(3,\)"):
        objective.mean(torch.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        objective.mean(torch.full((12,), torch.nan))


def test_the_worse_policy_is_named_worse(pictures: Painted, arguments: dict[str, Any]) -> None:
    comparison = compare(**arguments)
    (pair,) = comparison.pairs
    assert (pair.better, pair.a, pair.b) == ("near", "near", "far")
    assert pair.difference.high < 0
    assert comparison.sentences[0].startswith("near is better than far: its loss differs by -")
    turned = compare(**arguments | {"policies": {"far": FAR, "near": NEAR}})
    assert turned.pairs[0].difference.value == -pair.difference.value
    assert turned.sentences[0].startswith("near is better than far: its loss differs by -")


def test_what_runs_the_same_is_made_once_and_cannot_be_told_apart(pictures: Painted, arguments: dict[str, Any]) -> None:
    policies = {
        "one": NEAR,
        "copy": Policy(steps=8, budget="40%"),
        "all": Policy(steps=STEPS),
        # Another policy, whose pictures are those of the first in this world.
        "twin": Policy(steps=8, timesteps="leading"),
    }
    comparison = compare(**arguments | {"policies": policies})
    runs = {run.name: run for run in comparison.runs}
    assert {name: run.same_as for name, run in runs.items()} == {
        "one": None, "copy": "one", "all": "full run", "twin": None,
    }  # fmt: skip
    assert pictures.count == 3 * IMAGES
    assert runs["copy"].quality == runs["one"].quality == runs["twin"].quality
    assert runs["copy"].policy.budget == "40%"
    assert runs["all"].psnr.value == round(largest_psnr(3 * SIDE * SIDE), 6) > runs["one"].psnr.value
    assert runs["all"].quality.loss == Interval(value=0.0, low=0.0, high=0.0)
    pairs = {(pair.a, pair.b): pair for pair in comparison.pairs}
    assert len(pairs) == 6
    for names, same in ((("one", "copy"), True), (("one", "twin"), False)):
        assert pairs[names].difference == Interval(value=0.0, low=0.0, high=0.0)
        assert (pairs[names].better, pairs[names].same) == (None, same)
        assert pairs[names].sentence.startswith(f"{names[0]} and {names[1]} cannot be told apart")
    assert [note for note in comparison.notes if note.startswith(("copy runs the same as one", "all runs the same"))]
    assert torch.equal(comparison.previews[2], comparison.previews[1])


@pytest.mark.parametrize("call", [0, 1, 4, 8])
def test_an_interrupted_comparison_goes_on_to_the_same_end(
    pictures: Painted, arguments: dict[str, Any], tmp_path: Path, call: int
) -> None:
    whole = compare(**arguments | {"run_dir": tmp_path / "whole"})
    pictures.made.clear()

    def interrupt(count: int, policy: Policy) -> None:
        if count == call:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(Interrupted, match="repeat the same command") as stopped:
        compare(**arguments)
    assert stopped.value.run_dir == arguments["run_dir"]
    assert "compare.json" not in files(arguments["run_dir"])
    assert len(files(arguments["run_dir"] / "batches")) == call

    pictures.before = lambda count, policy: None
    again = compare(**arguments)
    assert again.to_dict() == whole.to_dict()
    assert (tmp_path / "whole" / "compare.json").read_bytes() == (arguments["run_dir"] / "compare.json").read_bytes()
    # Nothing that was kept is made again, but for the full run's pictures of the batch that was not complete.
    assert pictures.count == 3 * IMAGES + (BATCH if call % 3 else 0)
    pictures.made.clear()
    assert compare(**arguments).to_dict() == whole.to_dict()
    assert pictures.made == []


def test_ctrl_c_waits_until_the_batch_is_kept(
    pictures: Painted, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pictures.before = lambda count, policy: signal.raise_signal(signal.SIGINT) if count == 1 else None
    with pytest.raises(Interrupted):
        compare(**arguments)
    assert len(pictures.made) == len(files(arguments["run_dir"] / "batches")) == 2


def test_a_further_policy_or_another_objective_takes_up_what_is_kept(
    pictures: Painted, arguments: dict[str, Any]
) -> None:
    first = compare(**arguments)
    pictures.made.clear()
    more = compare(**arguments | {"policies": {"nearer": NEARER, **NAMED}})
    assert {key for key, _ in pictures.made} == {NEARER.key, Policy(steps=STEPS).key}
    assert more.runs[1].to_dict() == first.runs[0].to_dict()
    pictures.made.clear()
    other = compare(**arguments | {"judges": None, "objective": "fidelity", "reference": None})
    assert pictures.made == []
    assert other.conditions.weights == {"fidelity": 1.0}
    assert other.runs[0].quality.loss != first.runs[0].quality.loss
    assert other.runs[0].quality.fidelity == first.runs[0].quality.fidelity
    compare(**arguments | {"seed": 1})
    assert pictures.count == 3 * IMAGES


def test_lpips_is_measured_where_asked_for(
    pictures: Painted, arguments: dict[str, Any], lpips_weights: Path, tmp_path: Path
) -> None:
    without = compare(**arguments | {"reference": None})
    pictures.made.clear()
    arguments |= {"lpips": "squeeze", "reference": None}

    def interrupt(count: int, policy: Policy) -> None:
        if count == 5:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(Interrupted):
        compare(**arguments)
    pictures.before = lambda count, policy: None
    comparison = compare(**arguments)
    # Made anew since the pictures are gone, but neither those of a finished run of a batch nor of the reference.
    assert pictures.count == 3 * IMAGES + BATCH
    made = pictures.count
    assert compare(**arguments).to_dict() == comparison.to_dict() and pictures.count == made

    examples = choose(rows_of_prompts(PROMPTS), IMAGES, comparison.conditions.first_seed)
    near, full = (painted(each, *(examples.prompts, examples.seeds)) for each in (NEAR, Policy(steps=STEPS)))
    seen = comparison.runs[0].lpips
    assert seen is not None and comparison.full.lpips == Interval(value=0.0, low=0.0, high=0.0)
    assert seen.value == pytest.approx(float(Lpips("squeeze")(near, full).mean()), abs=1e-6)
    assert 0 < seen.low < seen.value < seen.high

    document = json.loads((arguments["run_dir"] / "compare.json").read_text())
    assert document["lpips"] == "squeeze"
    assert document["runs"][1]["lpips"] == seen.model_dump()
    assert (without.conditions.lpips, without.to_dict()["runs"][1]["lpips"]) == (None, None)
    assert comparison.runs[0].quality == without.runs[0].quality


def test_lpips_without_weights_is_refused_before_anything_is_made(
    pictures: Painted, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError, match="alex weights that LPIPS needs cannot be had"):
        compare(**arguments | {"lpips": "alex"})
    assert pictures.made == []
    assert not arguments["run_dir"].exists()


def test_lpips_of_small_pictures_is_refused(pictures: Painted, arguments: dict[str, Any], lpips_weights: Path) -> None:
    with pytest.raises(InputError, match="16 x 16 pixels are too small for LPIPS"):
        compare(**arguments | {"lpips": "squeeze", "height": 16, "width": 16})
    assert not arguments["run_dir"].exists()


def test_no_more_than_two_batches_are_alive_however_many_runs_and_pictures(
    pictures: Painted, arguments: dict[str, Any]
) -> None:
    policies = {f"s{steps}": Policy(steps=steps) for steps in (9, 8, 2)}
    comparison = compare(**arguments | {"policies": policies, "images": 5 * BATCH, "judges": ["fidelity"]})
    # Every prompt equally often.
    assert comparison.conditions.images == 84 and comparison.conditions.prompts == len(PROMPTS)
    assert len(pictures.made) == 4 * 6
    assert pictures.most_alive == 2
    assert len(pictures.alive) == 0
    assert all(len(each) == 8 for each in comparison.previews)


def test_without_a_reference_the_full_run_makes_its_own(pictures: Painted, arguments: dict[str, Any]) -> None:
    arguments["reference"] = None

    def interrupt(count: int, policy: Policy) -> None:
        if count == 3:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(Interrupted):
        compare(**arguments)
    pictures.before = lambda count, policy: None
    comparison = compare(**arguments)
    assert pictures.count == 3 * IMAGES + 4 * len(PROMPTS)
    assert comparison.conditions.reference == "the full run"
    assert comparison.pairs[0].better == "near"
    assert 0 < comparison.full.quality.distance.value < comparison.runs[1].quality.distance.value


def test_broken_pictures_are_the_named_policys_fault_and_the_rest_stays(
    pictures: Painted, arguments: dict[str, Any]
) -> None:
    def spoil(count: int, policy: Policy) -> None:
        if policy.key == FAR.key and count > 3:
            raise FloatingPointError("the pipeline made pictures with NaN or infinite values")

    pictures.before = spoil
    with pytest.raises(RunFailed, match=r"policy far: .* NaN or infinite values \(inputs 17 to 32\)"):
        compare(**arguments)
    assert len(files(arguments["run_dir"] / "batches")) == 5
    assert "compare.json" not in files(arguments["run_dir"])
    made = pictures.count
    compare(**arguments | {"policies": {"near": NEAR}})
    assert pictures.count == made + 2 * BATCH


def of_another_model(pipe: Any, **changes: Any) -> Policy:
    model = full_policy(pipe, STEPS).model
    assert model is not None
    return Policy(steps=4, model=model.model_copy(update=changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policies": {}}, "no policy"),
        ({"policies": {"full run": NEAR}}, "'full run'"),
        ({"policies": {" ": NEAR}}, "called ' '"),
        ({"images": 7}, "images is 7"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prompts": None}, "give prompts"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["noto apple"]}, "one input"),
        ({"height": 33}, "height is 33"),
        ({"height": 8, "width": 8}, "too small for SSIM"),
        ({"objective": "fidelty"}, "did you mean 'fidelity'"),
        ({"weight_fd": 0.0, "weight_clip": 0.0}, "both zero"),
        ({"distance": "kid", "reference": Gaussian(torch.zeros(8).double(), torch.eye(8).double(), 9)}, "statistics"),
        ({"reference": Gaussian(torch.zeros(5).double(), torch.eye(5).double(), 9)}, "5 dimensions .* have 8"),
        ({"reference": Path("missing")}, "missing"),
        ({"policies": {"a": NEAR, "b": Policy(steps=8, cache=(CacheRule(units=("z",), compute_steps=(0,)),))}}, "b: "),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    pictures: Painted, arguments: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        compare(**arguments | changes)
    assert pictures.made == []
    assert not arguments["run_dir"].exists()


def test_policies_of_another_model_or_full_run_are_refused(
    pipe: Any, pictures: Painted, arguments: dict[str, Any]
) -> None:
    other = of_another_model(pipe, denoiser_fingerprint="0" * 16)
    with pytest.raises(InputError, match="policy other: .*another model.*denoiser fingerprint"):
        compare(**arguments | {"policies": {"near": NEAR, "other": other}})
    twenty, thirty = (of_another_model(pipe, full_steps=steps) for steps in (20, 30))
    with pytest.raises(InputError, match=r"\(a: 20, b: 30\); give steps"):
        compare(**arguments | {"policies": {"a": twenty, "b": thirty}, "steps": None})
    assert not arguments["run_dir"].exists()

    comparison = compare(**arguments | {"policies": {"a": twenty}, "steps": None})
    assert comparison.full.policy.steps == comparison.conditions.model.full_steps == 20
    assert comparison.runs[0].cost.relative == pytest.approx(4 / 20)
    # What is asked for counts, not what the policies say.
    assert compare(**arguments | {"policies": {"a": twenty, "b": thirty}}).runs[1].cost.relative == pytest.approx(0.4)


def test_another_guidance_scale_than_the_tuned_one_is_said(pictures: Painted, arguments: dict[str, Any]) -> None:
    first = compare(**arguments)
    scale = first.conditions.guidance_scale
    assert first.notes == ()
    tuned = PolicyQuality(
        prompts=1, images=1, scorer="clip", estimator="frechet", weights={"fd": 1.0}, guidance_scale=scale + 1,
        policy=first.full.quality, full=first.full.quality, fewer_steps=first.full.quality, fewer_steps_count=8,
        difference=first.pairs[0].difference,
    )  # fmt: skip
    policies = {"tuned": Policy(steps=8, quality=tuned)}
    assert compare(**arguments | {"policies": policies}).notes == (
        f"tuned was tuned at guidance scale {scale + 1:g} and is compared at {scale:g}",
    )
    assert compare(**arguments | {"policies": policies, "guidance_scale": scale + 1}).notes == ()


def test_the_document_holds_everything(pictures: Painted, arguments: dict[str, Any]) -> None:
    comparison = compare(**arguments)
    document = json.loads((arguments["run_dir"] / "compare.json").read_text())
    assert document == comparison.to_dict()
    assert read_comparison(arguments["run_dir"] / "compare.json") == comparison.record
    assert [*document][:3] == ["format", "version", "model"]
    assert (document["format"], document["version"], document["level"]) == ("postdiff-comparison", 1, 0.95)
    assert (document["images"], document["prompts"]) == (IMAGES, len(PROMPTS))
    # Seeds of no other kind of pictures.
    assert comparison.conditions.first_seed == 3 * SEEDS_APART
    assert [run["name"] for run in document["runs"]] == ["full run", "near", "far"]
    for run in document["runs"]:
        assert autotune.load_policy(run["policy"]).steps == run["steps"]
        for score in ("loss", "distance", "alignment", "fidelity", "psnr", "ssim"):
            assert run[score]["low"] <= run[score]["value"] <= run[score]["high"]
    assert [run["cost"]["relative"] for run in document["runs"]] == pytest.approx([1, 0.8, 0.2])
    assert document["pairs"] == [comparison.pairs[0].to_dict()]


def test_the_shipped_model_brings_prompts_and_judges(tmp_path: Path) -> None:
    comparison = compare(
        None, {"one": Policy(steps=1)}, images=8, steps=2, objective="fidelity", run_dir=tmp_path / "run", quiet=True
    )
    assert set(comparison.preview_prompts) <= set(demo_assets().held_out_prompts)
    assert (comparison.conditions.scorer or "").startswith("emoji-clip@")
    assert comparison.conditions.reference.startswith("pictures.safetensors@")
    assert comparison.conditions.guidance_scale == demo_assets().guidance_scale
    assert comparison.runs[0].quality.loss.low > 0


def test_a_real_pipeline_is_left_as_it_was(pipe: Any, arguments: dict[str, Any]) -> None:
    whole = CacheRule(units=("up_blocks.1",), compute_steps=(0, 1, 2))
    policies = {"everything computed": Policy(steps=3, cache=(whole,)), "two": Policy(steps=2)}

    comparison: Comparison = compare(
        **arguments | {"policies": policies, "steps": 3, "images": 8, "judges": ["fidelity"], "reference": None}
    )

    everything, two = comparison.runs
    assert everything.same_as is None
    assert everything.identical == 1 and everything.psnr == comparison.full.psnr
    assert everything.quality.loss == Interval(value=0.0, low=0.0, high=0.0)
    assert two.identical < 1 and two.psnr.value < everything.psnr.value
    assert comparison.previews[0].shape == (8, 3, comparison.conditions.height, comparison.conditions.width)
    assert session_of(pipe) is None
