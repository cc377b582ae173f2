"""`accelerate launch -m gapbridge.scripts.NAME …` is `accelerate launch -m gapbridge NAME …`.

Launch lines that name a module of their own for each command keep working: all names lead to `alias.py`.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

from ..methods import names
from ..options import LAUNCHED


class _Alias:
    @classmethod
    def find_spec(cls, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        package, _, command = fullname.rpartition(".")
        if package != __name__ or command not in (*names(), *LAUNCHED):
            return None
        return spec_from_file_location(fullname, Path(__file__).with_name("alias.py"))


sys.meta_path.append(_Alias)
