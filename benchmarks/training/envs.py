"""Make each peer's own environment, once, with pinned versions, and never with a CUDA build.

torch is installed first, from whatever index pip is set to; the peer comes after it under the constraint of that very
torch. Before anything is downloaded pip says what it would install, and a set that holds CUDA libraries is refused.

    python = ensure_env("trl", Path("~/.cache/luthier/benchmarks").expanduser())
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TORCH = "torch==2.13.0"
ENVS: dict[str, tuple[str, ...]] = {
    "trl": ("trl==1.16.*", "peft==0.21.*", "transformers==5.23.*", "datasets>=5,<6", "accelerate>=1.15,<2"),
    "litgpt": ("litgpt==0.5.13",),
    "llamafactory": ("llamafactory==0.9.5",),
    "torchtune": ("torchtune==0.6.1", "torchao==0.10.0"),  # a later torchao has moved what torchtune imports
}
_REMOVED = {"llamafactory": ("torchvision", "torchaudio")}  # builds that need CUDA and fail when they are imported
_CUDA = ("nvidia-", "cuda-", "triton")


class DoesNotInstall(Exception):
    """An environment could not be made; the message is one line."""


def ensure_env(name: str, folder: Path) -> Path:
    """Return the Python of the environment `name` under `folder`, made now if it is not there.

    Raises:
        DoesNotInstall: pip says no, or would bring CUDA libraries.
    """
    env, wanted = folder / name, [TORCH, *ENVS[name]]
    python, marker = env / "bin" / "python", env / "installed.json"
    if marker.is_file() and json.loads(marker.read_text()) == wanted:
        return python
    print(f"making the environment {name} (once)", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(env)])
    constraint = env / "constraints.txt"
    constraint.write_text(TORCH + "\n")
    for packages in ([TORCH, "numpy"], list(ENVS[name])):
        _refuse_cuda(python, packages, constraint)
        _run([str(python), *_pip(constraint), *packages])
    if name in _REMOVED:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *_REMOVED[name]])
    marker.write_text(json.dumps(wanted))
    return python


def one_line(output: str) -> str:
    """Return the line of an output that says what went wrong.

    >>> one_line("Collecting x\\nERROR: No matching distribution\\n")
    'No matching distribution'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or line.startswith("ERROR")]
    said = (errors or lines or ["no output"])[-1]
    return said.removeprefix("ERROR: ")[:200]


def holds_cuda(names: Sequence[str]) -> list[str]:
    """Return those of the packages that belong to a CUDA build.

    >>> holds_cuda(["torch", "nvidia-cublas", "numpy"])
    ['nvidia-cublas']
    """
    return [name for name in names if name.lower().startswith(_CUDA)]


def _refuse_cuda(python: Path, packages: Sequence[str], constraint: Path) -> None:
    output = _run([str(python), *_pip(constraint), "--dry-run", "--report", "-", *packages])
    report = json.loads(output[output.index("{") :])
    found = holds_cuda([item["metadata"]["name"] for item in report["install"]])
    if found:
        raise DoesNotInstall(f"pip would bring CUDA libraries ({found[0]}, …); point it to an index with CPU builds")


def _pip(constraint: Path) -> list[str]:
    return ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraint)]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DoesNotInstall(one_line(done.stderr or done.stdout))
    return done.stdout
