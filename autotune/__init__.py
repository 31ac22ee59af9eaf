"""PostDiff: find, price and run the policy that makes a text-to-image pipeline cheaper.

A policy says what each denoising step computes. Importing this package loads nothing heavy:
each name below brings in what it needs when it is first used.

Example:
    >>> import autotune
    >>> policy = autotune.Policy(steps=8)
    >>> policy.save("policy.json")
    >>> pipe = autotune.demo_pipeline()
    >>> pipe = autotune.apply_policy(pipe, autotune.load_policy("policy.json"))
    >>> image = pipe("fluent red apple").images[0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core import errors
from autotune.core.lazy import attributes

if TYPE_CHECKING:
    from autotune.cost import price
    from autotune.models.shipped import demo_pipeline
    from autotune.policy import Policy, PolicySet
    from autotune.policy.loading import load_policy
    from autotune.policy.policy_set import load_policies
    from autotune.policy.schema import policy_schema
    from autotune.runtime import applied, apply_policies, apply_policy, full_policy, remove_policy, tier
    from autotune.workflows.compare import compare
    from autotune.workflows.fit_forecasts import fit_forecasts
    from autotune.workflows.tune import tune

__version__ = "0.1.0"

__all__ = [
    "Policy",
    "PolicySet",
    "__version__",
    "applied",
    "apply_policies",
    "apply_policy",
    "compare",
    "demo_pipeline",
    "errors",
    "fit_forecasts",
    "full_policy",
    "load_policies",
    "load_policy",
    "policy_schema",
    "price",
    "remove_policy",
    "tier",
    "tune",
]

__getattr__ = attributes(
    __name__,
    {
        "Policy": "policy",
        "PolicySet": "policy",
        "applied": "runtime",
        "apply_policies": "runtime",
        "apply_policy": "runtime",
        "compare": "workflows.compare",
        "demo_pipeline": "models.shipped",
        "fit_forecasts": "workflows.fit_forecasts",
        "full_policy": "runtime",
        "load_policies": "policy.policy_set",
        "load_policy": "policy.loading",
        "policy_schema": "policy.schema",
        "price": "cost",
        "remove_policy": "runtime",
        "tier": "runtime",
        "tune": "workflows.tune",
    },
)


def __dir__() -> list[str]:
    return __all__
