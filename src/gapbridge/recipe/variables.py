"""`env` of a recipe: variables that are set before the libraries are imported which read them, and those refused."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, describe
from .type_checks import read_yaml
from .yaml_nodes import ENVIRONMENT_VALUE


logger = logging.getLogger(__name__)

# What says from where code is loaded, or which programs run: a recipe may come from elsewhere.
_CODE = re.compile(
    r"PYTHON(?!HASHSEED$|UNBUFFERED$|FAULTHANDLER$|UTF8$|IOENCODING$|DONTWRITEBYTECODE$|MALLOC).*"
    r"|(?:LD|DYLD)_.*|GCONV_PATH|NLSPATH|PATH|SHELL|ENV|BASH_.*|IFS|CC|CXX|NVCC|CFLAGS|CXXFLAGS|LDFLAGS|SSH_ASKPASS"
    r"|GIT_(?:SSH.*|CONFIG.*|DIR|EXEC_PATH|ASKPASS|PAGER|EDITOR|EXTERNAL_DIFF|TEMPLATE_DIR|PROXY_COMMAND)"
    r"|EDITOR|VISUAL|PAGER|BROWSER|CUDA_HOME|CUDA_PATH|CUDA_INJECTION.*|ROCM_HOME|ROCM_PATH|NCCL_\w*PLUGIN\w*"
    r"|OMP_TOOL_LIBRARIES|MPLBACKEND|MATPLOTLIBRC|MPLCONFIGDIR|HF_MODULES_CACHE|TORCH_EXTENSIONS_DIR|TORCHINDUCTOR_\w*DIR"
    r"|TRITON_\w*(?:DIR|PATH|PLUGIN\w*)|DS_BUILD_\w*|VIRTUAL_ENV|CONDA_.*|HOME|USERPROFILE",
    re.IGNORECASE,
)
_AT_IMPORT = {
    "huggingface_hub": re.compile(r"HF_(?!TOKEN$).*|HUGGINGFACE_HUB_.*|XDG_CACHE_HOME"),
    "transformers": re.compile(r"TRANSFORMERS_.*"),
    "torch": re.compile(r"OMP_.*|MKL_.*|KMP_.*|PYTORCH_.*"),
}


def environment_errors(environment: Any) -> list[str]:
    """What is wrong with a recipe's `env`. No value is shown, for it may be a secret."""
    if not isinstance(environment, dict):
        got, advice = type(environment).__name__, "Write `NAME: VALUE` lines below it"
        return [describe("env", got, "a mapping of names to text", advice)]
    errors = []
    for name, value in environment.items():
        shown = str(name).partition("=")[0]
        if not (isinstance(name, str) and name.isidentifier()):
            got, advice = "a name that is no environment variable", "Correct the name"
            errors.append(describe(f"env, {shown!r}", got, "letters, digits and _", advice))
        elif isinstance(value, (list, dict)):
            advice = "Write the text of the environment variable"
            errors.append(describe(f"env, {shown!r}", type(value).__name__, "text", advice))
        elif value is None or "\0" in str(value):
            what = "nothing" if value is None else "a null character"
            errors.append(describe(f"env, {shown!r}", what, "text", 'Write "" for an empty value'))
        elif _CODE.fullmatch(name):
            got, advice = "a variable that selects the code to load", "Set it in the shell that starts the command"
            errors.append(describe(f"env, {name}", got, "none of that kind", advice))
    return errors


def set_early(path: str | Path | None) -> None:
    """Set a recipe's `env` before anything reads it at its import, and nothing where `env` or the file is refused:
    the recipe's parser says so later, with all other errors."""
    try:
        environment = None if path is None else read_yaml(Path(path), {"env": dict[str, ENVIRONMENT_VALUE]}).get("env")
    except ConfigError:
        return
    if environment and not environment_errors(environment):
        for late in too_late(environment):
            logger.warning("%s: %s", path, late)
        os.environ.update({name: str(value) for name, value in environment.items()})


def too_late(environment: Mapping[str, Any]) -> list[str]:
    """A note for each variable that a library has read before it got this value."""
    return [
        f"env: {name} has no effect, because {library} reads it at its import. Set it in the shell."
        for name, value in environment.items()
        for library, names in _AT_IMPORT.items()
        if library in sys.modules and names.fullmatch(name) and os.environ.get(name) != str(value)
    ]
