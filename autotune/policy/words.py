"""A policy in words."""

from __future__ import annotations

from autotune.policy.canonical import id_of
from autotune.policy.document import PolicyDocument
from autotune.policy.records import Certificate
from autotune.policy.techniques import Guidance


def in_words(policy: PolicyDocument) -> str:
    """What the policy does, one short sentence per part."""
    parts = [f"{policy.steps} steps."]
    first = 1
    for stage in policy.resolution:
        parts.append(f"Steps {first} to {stage.until_step} at {stage.scale:.3g} of the side length.")
        first = stage.until_step + 1
    for rule in policy.cache:
        units = " and ".join(rule.units)
        between = f"forecast (order {rule.order})" if rule.order else "reused"
        if rule.weights is not None:
            between = "forecast (fitted weights)"
        what = "What is added by" if rule.mode == "residual" else "Output of"
        parts.append(f"{what} {units} computed in {len(rule.compute_steps)} steps, {between} in the others.")
    if policy.guidance is not None:
        parts.append(_guidance_in_words(policy.guidance))
    if len(parts) == 1:
        parts.append("Every step at full size, with guidance, nothing reused.")
    return " ".join(parts)


def _guidance_in_words(guidance: Guidance) -> str:
    times = "" if guidance.factor is None else f", {guidance.factor:g} times as strong"
    where = f"Guidance in steps {guidance.start_step + 1} to {guidance.stop_step} only{times}"
    if guidance.compute_steps is None:
        return f"{where}."
    return (
        f"{where}, both branches computed in {len(guidance.compute_steps)} of them, their last difference used again in"
        " the others."
    )


def computes_everything(policy: PolicyDocument) -> bool:
    """Whether every step is at full size, with guidance, nothing reused: what is cheaper has fewer steps alone."""
    guided = policy.guidance is None or policy.guidance == Guidance(stop_step=policy.steps)
    return guided and not policy.resolution and all(len(rule.compute_steps) == policy.steps for rule in policy.cache)


def is_plain(policy: PolicyDocument) -> bool:
    """Whether that is all there is to it: the pipeline's own solver, and the noise levels it has by itself."""
    own = policy.scheduler is None and policy.timesteps == "default" and policy.sigmas is None
    return own and computes_everything(policy)


def steps_in_words(policy: PolicyDocument) -> str:
    """What fewer steps are called: ``8 plain steps``, or with their id where they are not the pipeline's own.

    Example:
        >>> steps_in_words(autotune.Policy(steps=8))
        '8 plain steps'
        >>> steps_in_words(autotune.Policy(steps=9, timesteps="trailing"))
        '9 steps with other noise levels (s9-ts-trailing)'
    """
    if is_plain(policy):
        return f"{policy.steps} plain step{'s' * (policy.steps != 1)}"
    solver = "another solver" if policy.scheduler is not None else ""
    levels = "other noise levels" if policy.timesteps != "default" or policy.sigmas is not None else ""
    own = " and ".join(filter(None, (solver, levels)))
    return f"{policy.steps} steps with {own} ({id_of(policy)})"


def floor_in_words(certificate: Certificate) -> str:
    """What a certificate says may be lost: ``a loss of at most 0.02``."""
    parts = {"loss": certificate.max_loss, "change": certificate.max_change}
    return " and ".join(f"a {name} of at most {most:g}" for name, most in parts.items() if most is not None)


def certified_in_words(certificate: Certificate) -> str:
    """The same with what was seen: ``a loss of at most 0.02 (held-out 0.011, 95 % interval 0.002 to 0.019)``."""
    seen = [each for each in (certificate.loss, certificate.change) if each is not None]
    ends = " and ".join(f"{each.value:.3f}, 95 % interval {each.low:.3f} to {each.high:.3f}" for each in seen)
    return f"{floor_in_words(certificate)} (held-out {ends})"
