"""What a policy says, and how it is read, kept, shared and put into words."""

from __future__ import annotations

from autotune.core.interval import Interval
from autotune.policy.canonical import MAX_BYTES, MAX_ID
from autotune.policy.document import FORMAT, VERSIONS, lowest_version
from autotune.policy.fields import (
    MAX_CONFIG_LIST,
    MAX_CONFIG_NUMBER,
    MAX_STEPS,
    MAX_TIMESTEP,
    MAX_WEIGHT,
    MAX_WEIGHTS,
    ClassName,
    ConfigKey,
    ConfigValue,
    Integer,
    Pixels,
    Sigma,
    Spacing,
    StepIndex,
    StepWeights,
    Timestep,
    Timesteps,
    UnitName,
)
from autotune.policy.loading import policy_from_dict, read_policy
from autotune.policy.policy import Policy
from autotune.policy.policy_set import PolicySet, load_policies, read_set, set_from_dict, tier_name
from autotune.policy.records import (
    Certificate,
    ContenderQuality,
    MeasuredTime,
    ModelInfo,
    PolicyCost,
    PolicyQuality,
    PredictedTime,
    Provenance,
)
from autotune.policy.techniques import CacheRule, Guidance, ResolutionStage, SchedulerChoice

__all__ = [
    "CacheRule",
    "Certificate",
    "ClassName",
    "ConfigKey",
    "ConfigValue",
    "ContenderQuality",
    "FORMAT",
    "Guidance",
    "Integer",
    "Interval",
    "MAX_BYTES",
    "MAX_CONFIG_LIST",
    "MAX_CONFIG_NUMBER",
    "MAX_ID",
    "MAX_STEPS",
    "MAX_TIMESTEP",
    "MAX_WEIGHT",
    "MAX_WEIGHTS",
    "MeasuredTime",
    "ModelInfo",
    "Pixels",
    "Policy",
    "PolicySet",
    "PolicyCost",
    "PolicyQuality",
    "PredictedTime",
    "Provenance",
    "ResolutionStage",
    "SchedulerChoice",
    "Sigma",
    "Spacing",
    "StepIndex",
    "StepWeights",
    "Timestep",
    "Timesteps",
    "UnitName",
    "VERSIONS",
    "load_policies",
    "lowest_version",
    "policy_from_dict",
    "read_policy",
    "read_set",
    "set_from_dict",
    "tier_name",
]
