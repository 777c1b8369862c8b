"""GPU memory as the driver tells it: without torch, and without waking a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU, of all its processes, bytes."""

    name: str
    used: int
    total: int


def gpu_memory() -> list[GpuMemory]:
    """Every GPU that this process may see; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        found = []
        for handle in handles:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            found.append(GpuMemory(str(name), int(memory.used), int(memory.total)))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
