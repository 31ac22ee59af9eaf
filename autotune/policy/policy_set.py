"""Several policies for one model, each by the name of a tier, as one strict JSON file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from autotune.core.errors import PolicyError
from autotune.core.naming import FULL_TIER
from autotune.core.records import Record, in_schema, read_document, refusal, shown, validated, write_atomically
from autotune.policy.canonical import MAX_BYTES
from autotune.policy.hub import POLICIES_FILE, push, set_card
from autotune.policy.loading import located, policy_from_dict
from autotune.policy.policy import Policy

SET_FORMAT: Literal["postdiff-policies"] = "postdiff-policies"
SET_VERSIONS = (1,)
MAX_TIERS = 16

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
TIER_PATTERN = rf"^(?!{FULL_TIER}$){_NAME.pattern}$"
"""Of names, for JSON Schemas."""


def tier_name(name: str) -> str:
    """The name, where a tier may have it.

    Raises:
        ValueError: it may not; the message is half a sentence that says why.
    """
    if name == FULL_TIER:
        raise ValueError(f"{FULL_TIER!r} is the full run, which every set has without saying so: choose another name")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is no name for a tier: use lower-case letters, digits, '-' and '_', a letter first, at most"
            " 32"
        )
    return name


TierName = Annotated[str, AfterValidator(tier_name), in_schema(pattern=TIER_PATTERN)]


class PolicySet(Record):
    """Policies for one model by the names of their tiers, in the order they were given in.

    The tier ``"full"``, the full run, is part of every set and in none of their files.

    Example:
        >>> tiers = autotune.PolicySet(tiers={"high": autotune.Policy(steps=12), "draft": autotune.Policy(steps=5)})
        >>> tiers.save("policies.json")
        >>> autotune.load_policies("policies.json").tiers["draft"].id
        's5'
    """

    format: Literal["postdiff-policies"] = SET_FORMAT
    version: Literal[1] = 1
    tiers: Annotated[dict[TierName, Policy], Field(min_length=1, max_length=MAX_TIERS)]

    @model_validator(mode="after")
    def _for_one_model(self) -> Self:
        made_for = [(name, policy.model) for name, policy in self.tiers.items() if policy.model is not None]
        for name, model in made_for[1:]:
            first, other = made_for[0]
            different = [field for field in type(model).model_fields if getattr(model, field) != getattr(other, field)]
            if different:
                field = different[0]
                raise ValueError(
                    f"tiers: {name!r} was made for another model than {first!r}: its {field.replace('_', ' ')} is"
                    f" {getattr(model, field)!r}, not {getattr(other, field)!r}; a set is for one model"
                )
        return self

    @classmethod
    def of(cls, tiers: PolicySet | Mapping[str, Policy]) -> PolicySet:
        """A set of policies by name.

        Raises:
            PolicyError: there are none, more than 16, policies for different models, or unusable names.
        """
        return (
            tiers
            if isinstance(tiers, PolicySet)
            else validated(cls, {"tiers": dict(tiers)}, refusal("tiers", PolicyError))
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that :func:`autotune.load_policies` accepts."""
        return self.model_dump(mode="json")

    def to_text(self) -> str:
        """What :meth:`save` writes.

        Raises:
            PolicyError: the file would exceed 8 KB a tier.
        """
        tiers = ",\n".join(f'"{name}": {policy.to_text().rstrip()}' for name, policy in self.tiers.items())
        text = f'{{\n"format": "{self.format}",\n"version": {self.version},\n"tiers": {{\n{tiers}\n}}\n}}\n'
        if len(text.encode()) > MAX_BYTES * len(self.tiers):
            raise PolicyError(
                f"the policies take {len(text.encode())} bytes, a file of {len(self.tiers)} holds at most"
                f" {MAX_BYTES * len(self.tiers)}"
            )
        return text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all, every policy with a checksum over its content.

        Raises:
            PolicyError: the file would exceed 8 KB a tier.
        """
        write_atomically(Path(path), self.to_text())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        filename: str = POLICIES_FILE,
        commit_message: str | None = None,
    ) -> str:
        """Upload the set to the Hugging Face Hub, where ``load_policies("user/repo")`` finds it.

        See :meth:`autotune.Policy.push_to_hub`, which takes the same arguments.

        Returns:
            The commit's address.

        Raises:
            PolicyError: the file would exceed 8 KB a tier.
            InputError: ``repo_id`` or ``filename`` is none, or the Hub refuses.
        """
        return push(
            self.to_text(),
            lambda repository: set_card(self.tiers, repository, filename),
            repo_id,
            token=token,
            private=private,
            filename=filename,
            commit_message=commit_message or f"Policies {', '.join(self.tiers)}",
        )


def load_policies(
    source: str | os.PathLike[str] | Mapping[str, Any], *, filename: str = POLICIES_FILE, revision: str | None = None
) -> PolicySet:
    """Load a set of policies and check it strictly.

    Args:
        source: the path of a file of policies, the document itself as a dict, or a Hugging Face Hub id
            (``user/repo``) that the file is downloaded from. What exists as a file is a file.
        filename: its name in the Hub's repository.
        revision: branch, tag or commit there; a commit never changes.

    Raises:
        PolicyError: it is missing, unreadable, a policy in it was changed after its export, or it is no valid set.

    Example:
        >>> policy = {"format": "postdiff-policy", "version": 1, "steps": 12}
        >>> tiers = load_policies({"format": "postdiff-policies", "version": 1, "tiers": {"high": policy}})
        >>> list(tiers.tiers)
        ['high']
    """
    return set_from_dict(source) if isinstance(source, Mapping) else read_set(located(source, filename, revision))


def holds_set(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it holds several policies, valid or not."""
    if not os.path.isfile(path):
        return False
    try:
        document = read_document(path, MAX_TIERS * MAX_BYTES, "policies", PolicyError)
    except PolicyError:
        # Whoever reads it as what it should be says what is wrong.
        return False
    return document.get("format") == SET_FORMAT


def set_from_dict(document: Mapping[str, Any], source: str = "policies") -> PolicySet:
    """Validate a dict strictly, every policy with its checksum.

    Raises:
        PolicyError: one sentence naming the tier, the key, the value and the nearest valid choice.
    """
    refuse = refusal(source, PolicyError)
    named, version = document.get("format"), document.get("version")
    if not isinstance(named, str) or named != SET_FORMAT:
        one = " (it is that of a single policy)" if named == "postdiff-policy" else ""
        raise refuse(f"not a file of policies, its 'format' is not {SET_FORMAT!r}{one}")
    if type(version) is not int or version not in SET_VERSIONS:
        known = " and ".join(map(str, SET_VERSIONS))
        raise refuse(f"version {shown(version)} of policy sets is unknown, this release reads {known}")
    tiers = document.get("tiers")
    if not isinstance(tiers, Mapping):
        return validated(PolicySet, document, refuse)
    policies = {}
    for name, policy in tiers.items():
        if not isinstance(policy, Mapping):
            raise refuse(f"tier {shown(name)} is {shown(policy)}: should be a policy, an object in braces")
        policies[name] = policy_from_dict(policy, f"{source}, tier {str(name)[:40]}")
    return validated(PolicySet, {**document, "tiers": policies}, refuse)


def read_set(path: str | os.PathLike[str]) -> PolicySet:
    """Load and validate a file of policies.

    Raises:
        PolicyError: the file is missing, unreadable, too large, not JSON, or no valid set.
    """
    document = read_document(path, MAX_TIERS * MAX_BYTES, "policies", PolicyError)
    return set_from_dict(document, str(path))
