"""The policy: what each denoising step computes, as a small, strict, human-readable JSON file.

A policy is data. It knows nothing of torch; :mod:`autotune.plan` makes it explicit against
one denoiser, and :mod:`autotune.runtime` executes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from autotune.core.records import write_atomically
from autotune.policy.canonical import id_of, key_of, text_of
from autotune.policy.document import PolicyDocument
from autotune.policy.hub import card, push


class Policy(PolicyDocument):
    """What each denoising step computes, for one model. See the module docstring.

    ``timesteps`` names a spacing of the scheduler ("default" is its own) or lists one timestep
    per step; ``sigmas`` lists noise levels instead. ``scheduler`` replaces the pipeline's solver.

    Example:
        >>> rule = {"units": ["up_blocks.1"], "compute_steps": [0, 3, 6, 9]}
        >>> policy = autotune.Policy(steps=12, cache=[rule], guidance={"stop_step": 8})
        >>> policy.id
        's12-up_blocks.1i3-g8'
        >>> policy.to_dict()["guidance"]
        {'start_step': 0, 'stop_step': 8, 'after': 'nothing'}
    """

    @property
    def id(self) -> str:
        """Short and readable, for tables and file names: ``s20-r0.50@10-up_blocks.1i3-g15``.

        Steps, ``@`` another solver, ``ts-`` timesteps or ``sigmas``; scale@until per stage, with
        ``~`` when noise-matched; per rule the units (``each`` and ``all`` for ``*`` and ``**``) and
        ``i`` interval, or ``n`` number of computing steps when they are not evenly spaced, then
        ``x`` for residual, ``f`` and the order of a forecast of either, or ``w`` and the most weights
        that a step has; guided steps, again with ``i`` or ``n`` when the unconditional branch is computed
        in some of them only, ``x`` and what guidance adds is multiplied by, and ``+ca`` when cross-attention is
        reused after them. At most 120 characters: a longer one ends in a hash.
        """
        return id_of(self)

    @property
    def key(self) -> str:
        """A hash of what is executed: equal for policies that differ only in their records."""
        return key_of(self)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that :func:`policy_from_dict` accepts."""
        return self.model_dump(mode="json")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON, whole or not at all, with a checksum over its content.

        Raises:
            PolicyError: the file would exceed 8 KB.

        Example:
            >>> autotune.Policy(steps=8).save("policy.json")
            >>> autotune.load_policy("policy.json").id
            's8'
        """
        write_atomically(Path(path), self.to_text())

    def to_text(self) -> str:
        """What :meth:`save` writes.

        Raises:
            PolicyError: the file would exceed 8 KB.
        """
        return text_of(self)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        filename: str = "policy.json",
        commit_message: str | None = None,
    ) -> str:
        """Upload the policy to the Hugging Face Hub, where ``load_policy("user/repo")`` finds it.

        One commit: the file as :meth:`save` writes it, and where the repository has no README.md one made from the
        policy's records.

        Args:
            repo_id: ``user/repo``; it is created where it does not exist.
            token: of an account that may write there; None is the one of ``hf auth login`` or ``HF_TOKEN``.
            private: whether a new repository is; None is the account's default.
            filename: in the repository.
            commit_message: None names the policy.

        Returns:
            The commit's address; its last part is a ``revision`` for :func:`autotune.load_policy`.

        Raises:
            PolicyError: the file would exceed 8 KB.
            InputError: ``repo_id`` or ``filename`` is none, or the Hub refuses.

        Example:
            >>> autotune.Policy(steps=12).push_to_hub("user/twelve-steps")
            'http.../user/twelve-steps/commit/...'
        """
        return push(
            self.to_text(),
            lambda repository: card(self, repository, filename),
            repo_id,
            token=token,
            private=private,
            filename=filename,
            commit_message=commit_message or f"Policy {self.id}",
        )
