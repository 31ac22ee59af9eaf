"""What a torch device is: the hardware and driver that times were taken on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from autotune.cost.hardware_profile import Device
from autotune.cost.releases import versions

__all__ = ["describe_device", "versions"]

_NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=driver_version,clocks.sm,clocks.max.sm,clocks.mem",
    "--format=csv,noheader,nounits",
)
_SECONDS = 10


def describe_device(device: str | torch.device) -> Device:
    """The hardware behind a torch device."""
    device = torch.device(device)
    if device.type == "cuda":
        driver, clocks = _ask_driver(device.index or 0)
        return Device(
            kind="cuda",
            name=torch.cuda.get_device_name(device),
            driver=driver,
            cuda=torch.version.cuda or torch.version.hip,
            clocks=clocks,
        )
    if device.type == "mps":
        return Device(kind="mps", name=platform.machine())
    return Device(kind="cpu", name=_processor(), threads=torch.get_num_threads())


def _ask_driver(index: int) -> tuple[str | None, str | None]:
    """Version of the driver and state of the clocks, where its tool is there to say."""
    try:
        answer = subprocess.run([*_NVIDIA_SMI, f"--id={index}"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    if answer.returncode or len(values) != 4:
        return None, None
    driver, present, highest, memory = values
    return driver, f"SM {present} of {highest} MHz, memory {memory} MHz"


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
