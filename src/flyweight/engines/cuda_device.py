"""Whether a CUDA device is here, asked of the driver itself: no package is loaded for the question."""

import ctypes
from functools import cache

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
NO_DEVICE = "there is no CUDA device here"


@cache
def no_cuda_device() -> str | None:
    """Return None if the NVIDIA driver knows a device, else that there is none, and why.

    Example: on a machine without one, "there is no CUDA device here (no NVIDIA driver)".
    """
    driver = _driver()
    if driver is None:
        return f"{NO_DEVICE} (no NVIDIA driver)"
    count = ctypes.c_int(0)
    for failed in (driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count))):
        if failed:
            return f"{NO_DEVICE} (the NVIDIA driver answers with error {failed})"
    return None if count.value else f"{NO_DEVICE} (the NVIDIA driver counts none)"


def _driver() -> ctypes.CDLL | None:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
