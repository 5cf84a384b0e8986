"""Server programs that come inside wheels: found, and compared with what they should be before they are run."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from schemas.errors import Failure


def own(variable: str, text: str) -> Path:
    """The user's own program that `variable` names. Raises Failure("not_installed") when it cannot be run."""
    path = Path(text).expanduser().absolute()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise Failure("not_installed", f"{variable}={text} is no program that can be run; correct the path or unset it")
    return path


def executable(package: str, name: str, pins: Mapping[str, str], instead: str) -> Path:
    """The file `name` of an installed `package`, after its SHA-256 was compared with RECORD and with `pins`.

    `pins` maps `this_platform()` to a hex digest; a platform without one has only RECORD. It is read anew at each call:
    a remembered verdict could be of a file that is no longer there. `instead` is the variable that names a program
    of the user's own. Raises Failure("not_installed").
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise Failure("not_installed", f"the package {package} is not installed; install it or set {instead}") from None
    entry = next((file for file in files if file.name == name and file.hash), None)
    path = Path(str(entry.locate())).resolve() if entry else None
    if entry is None or entry.hash is None or path is None or not path.is_file():
        raise Failure("not_installed", f"{package} brings no {name} for {this_platform()}; set {instead} to your own")
    found = digest(path)
    recorded = base64.urlsafe_b64decode(entry.hash.value + "==").hex()
    pinned = pins.get(this_platform(), found)
    for expected, where in ((recorded, "its wheel's RECORD"), (pinned, "this release of VX11")):
        if found != expected:
            raise Failure(
                "not_installed",
                f"{path} is not the program that {where} names: its SHA-256 is {found}, expected {expected}. "
                f"It was not started. Reinstall {package}, or set {instead} to a program that you trust",
            )
    return path


def this_platform() -> str:
    """For instance `linux-x86_64`."""
    return f"{sys.platform}-{platform.machine()}"


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
