"""Policies on the Hugging Face Hub: a repository with the file and a card made from its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotune.core.errors import InputError, PolicyError, reason_of
from autotune.core.interval import Interval
from autotune.core.naming import is_hub_id
from autotune.policy.canonical import id_of
from autotune.policy.document import PolicyDocument
from autotune.policy.records import PolicyQuality
from autotune.policy.words import certified_in_words, in_words

POLICY_FILE, POLICIES_FILE, CARD = "policy.json", "policies.json", "README.md"

# What holds the pictures that a pipeline returns, where that is not ``images``.
_RETURNED_AS = {"Kandinsky5T2IPipeline": "image", "Kandinsky5I2IPipeline": "image"}

# A Hub id has at most 96 characters.
_LONGEST_NAME = 96
_LONGEST_REASON = 90


def push(
    text: str,
    readme: Callable[[str], str],
    repo_id: str,
    *,
    token: str | None,
    private: bool | None,
    filename: str,
    commit_message: str,
) -> str:
    """What :meth:`autotune.Policy.push_to_hub` does with a file's text, and a card made for the repository."""
    if not is_hub_id(repo_id):
        raise InputError(f"{repo_id!r} is no repository of the Hugging Face Hub: give user/repo")
    if not filename.endswith(".json"):
        raise InputError(f"filename {filename!r}: a policy is a JSON file, give a name such as {POLICY_FILE!r}")

    # Here, because policies from files and dicts need no hub.
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        files = {filename: text}
        if not api.file_exists(repo_id, CARD):
            files[CARD] = readme(repo_id)
        added = [CommitOperationAdd(path, content.encode()) for path, content in files.items()]
        commit = api.create_commit(repo_id, added, commit_message=commit_message)
    except Exception as error:  # Refused tokens to lost connections, of several libraries.
        raise InputError(
            f"{repo_id}: the Hugging Face Hub did not take the policy ({reason_of(error)}); log in with 'hf auth"
            " login' or give a token that may write there"
        ) from error
    return str(commit.commit_url)


def download(repository: str, filename: str, revision: str | None) -> str:
    """The path of a policy file fetched from the Hub, or kept here since it was.

    Raises:
        PolicyError: the Hub does not give it out.
    """
    # As above.
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repository, filename, revision=revision))
    except Exception as error:  # Everything from bad ids to lost connections, of several libraries.
        name = repository if len(repository) <= _LONGEST_NAME else f"{repository[: _LONGEST_NAME - 3]}..."
        reason = reason_of(error, _LONGEST_REASON)
        raise PolicyError(
            f"{name}: neither a file nor a policy that the Hugging Face Hub gives out ({reason});"
            f" check the path, or that the repository holds {filename}"
        ) from None


def card(policy: PolicyDocument, repo_id: str, filename: str = POLICY_FILE) -> str:
    """The repository's README.md: what the policy does, what it costs, how it scored, how to run it.

    It says what the policy's records say, and nothing of what they leave out.
    """
    model = policy.model
    made_for = "" if model is None else f" for `{model.pipeline}` at {model.height}x{model.width} pixels"
    named = "" if filename == POLICY_FILE else f', filename="{filename}"'
    pipeline = "DiffusionPipeline" if model is None else model.pipeline
    parts = [
        "---\nlibrary_name: diffusers\npipeline_tag: text-to-image\ntags:\n- postdiff\n---",
        f"# {repo_id.partition('/')[2]}",
        f"A PostDiff policy{made_for}: what each denoising step computes. {in_words(policy)}",
        *_measured(policy),
        "## Run it",
        "```python\n"
        "import autotune\n"
        f"from diffusers import {pipeline}\n\n"
        f'pipe = {pipeline}.from_pretrained("the model it was made for")\n'
        f'pipe = autotune.apply_policy(pipe, autotune.load_policy("{repo_id}"{named}))\n'
        f'image = pipe("a prompt").{returned_as(pipeline)}[0]\n'
        "```",
        f"`{filename}` is `{id_of(policy)}`; `postdiff describe {filename}` draws its plan.",
    ]
    return "\n\n".join(parts) + "\n"


def set_card(tiers: Mapping[str, PolicyDocument], repo_id: str, filename: str = POLICIES_FILE) -> str:
    """The README.md of a repository of policies: what each tier does, costs and scored, and how to run them."""
    models = [policy.model for policy in tiers.values() if policy.model is not None]
    made_for = f" for `{models[0].pipeline}` at {models[0].height}x{models[0].width} pixels" if models else ""
    named = "" if filename == POLICIES_FILE else f', filename="{filename}"'
    pipeline = models[0].pipeline if models else "DiffusionPipeline"
    first, last = next(iter(tiers)), list(tiers)[-1]
    rows = [
        f"| {name} | {'' if policy.cost is None else f'{policy.cost.relative:.1%}'} |"
        f" {'' if policy.quality is None else _text(policy.quality.policy.loss)} | {in_words(policy)} |"
        for name, policy in tiers.items()
    ]
    parts = [
        "---\nlibrary_name: diffusers\npipeline_tag: text-to-image\ntags:\n- postdiff\n---",
        f"# {repo_id.partition('/')[2]}",
        f"PostDiff policies{made_for}: tiers that a call chooses from. The tier `full` is the full run. Its FLOPs are"
        " 100 %; its loss is 0, and lower is better. Losses are of held-out inputs, with 95 % intervals.",
        "\n".join(["| tier | FLOPs | loss | what it does |", "|---|---|---|---|", *rows]),
        "## Run it",
        "```python\n"
        "import autotune\n"
        f"from diffusers import {pipeline}\n\n"
        f'pipe = {pipeline}.from_pretrained("the model they were made for")\n'
        f'tiers = autotune.load_policies("{repo_id}"{named})\n'
        f'pipe = autotune.apply_policies(pipe, tiers, default="{first}")\n'
        f'with autotune.tier(pipe, "{last}"):\n'
        f'    image = pipe("a prompt").{returned_as(pipeline)}[0]\n'
        "```",
    ]
    return "\n\n".join(parts) + "\n"


def returned_as(pipeline: str) -> str:
    """What holds the pictures that a pipeline of this class returns."""
    return _RETURNED_AS.get(pipeline, "images")


def _measured(policy: PolicyDocument) -> list[str]:
    facts = []
    if policy.budget is not None:
        facts.append(("budget", policy.budget))
    if policy.cost is not None:
        cost = policy.cost
        facts.append(("compute", f"{cost.relative:.1%} of the full run, {cost.flops / 1e9:,.4g} GFLOPs a picture"))
        for time in cost.measured:
            pace = f"{time.ms_per_image:.4g} ms a picture, {time.batch_size} in a call, on {time.device}"
            facts.append(("time", f"{time.relative:.1%} of the full run; {pace}"))
    if policy.provenance is not None and policy.provenance.date is not None:
        facts.append(("date", policy.provenance.date))
    parts = []
    if facts:
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts)]))
    if policy.quality is not None:
        parts.append(_scores(policy.quality, policy.steps))
    return parts


def _scores(quality: PolicyQuality, steps: int) -> str:
    runs = (
        ("full run", quality.full),
        (f"{_fewer_steps(quality)} at the same cost", quality.fewer_steps),
        (f"this policy, {steps} steps", quality.policy),
    )
    aligned = quality.policy.alignment is not None
    scores = ("loss", "distance", "alignment") if aligned else ("loss", "distance")
    return "\n".join(
        [
            f"{quality.images} pictures of {quality.prompts} {'prompts' if aligned else 'inputs'} that the search never"
            " saw, 95 % intervals in parentheses; 0 is the loss of the full run, lower is better.",
            "",
            f"| run | {' | '.join(scores)} |",
            f"|---|{'---|' * len(scores)}",
            *(f"| {name} | {' | '.join(_text(getattr(of, score)) for score in scores)} |" for name, of in runs),
            "",
            f"Loss of the policy minus that of the fewer steps: {_text(quality.difference)}.",
            *([] if quality.certificate is None else ["", f"Certified: {certified_in_words(quality.certificate)}."]),
        ]
    )


def _fewer_steps(quality: PolicyQuality) -> str:
    own = quality.fewer_steps_policy
    return f"{quality.fewer_steps_count} {'plain steps' if own is None else f'steps, {own},'}"


def _text(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
