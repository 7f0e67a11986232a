"""A CPU as one of verl's platforms, which has none. verl imports this module by `VERL_USE_EXTERNAL_MODULES`."""

import contextlib
import os

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

_init_process_group = torch.distributed.init_process_group


def init_process_group(backend=None, **keywords):
    """verl asks for "cpu:gloo,<device>:<backend>", which torch refuses if the device is the CPU."""
    return _init_process_group(backend="gloo" if backend == "cpu:gloo,cpu:gloo" else backend, **keywords)


torch.distributed.init_process_group = init_process_group
# verl keeps the reference model's weights in pinned memory, which only a device has.
torch.Tensor.pin_memory = lambda self, *_: self


class DeviceModule:
    """`torch.cpu` with what verl calls on `torch.cuda`; memory that is asked for is 0."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(torch.cpu, name, lambda *_, **__: 0)

    def get_device_name(self, *_):
        return "cpu"

    def mem_get_info(self, *_):
        return 0, 0


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name, vendor_name, device_module = "cpu", "cpu", DeviceModule()

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg):
        return contextlib.nullcontext()

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"  # logical ones, which Ray is told of

    def ray_noset_envvars(self):
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


if os.environ.get("KPO_TEST_ROLLOUT"):
    import fake_rollout  # noqa: F401
