"""Where things are: the state directory, the control socket and the configuration file, by the contract's search order.

Promises: nothing here reads more than whether a file exists, nothing is created, and the module is cheap to import.
"""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_CONFIG = Path("/etc/mailtui/mailtui.toml")
SYSTEM_STATE = Path("/var/lib/mailtui")
SYSTEM_SOCKET = Path("/run/mailtui/control.sock")
SYSTEM_UNITS = (
    Path("/etc/systemd/system/mailtui.service"),
    Path("/usr/lib/systemd/system/mailtui.service"),
    Path("/lib/systemd/system/mailtui.service"),
)


def system_wide() -> bool:
    """True if a relay of the whole machine is configured: its socket, unit or configuration exists."""
    return any(path.exists() for path in (SYSTEM_SOCKET, SYSTEM_CONFIG, *SYSTEM_UNITS))


def state_dir(flag: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory: `--state`, MAILTUI_STATE, /var/lib/mailtui if a system-wide relay is configured, XDG."""
    named = flag or environ.get("MAILTUI_STATE")
    if named:
        return Path(named).absolute()
    if system_wide():
        return SYSTEM_STATE
    base = environ.get("XDG_STATE_HOME", "")
    # A relative XDG path is invalid and to be ignored (XDG Base Directory Specification).
    root = Path(base) if base.startswith("/") else Path(os.path.expanduser("~")) / ".local" / "state"
    return root / "mailtui"


def socket_path(state: Path, flag: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The control socket: `--socket`, MAILTUI_SOCKET, in /run/mailtui for the system-wide state, else in `state`."""
    named = flag or environ.get("MAILTUI_SOCKET")
    if named:
        return Path(named).absolute()
    return SYSTEM_SOCKET if state == SYSTEM_STATE else state / "control.sock"


def config_file(state: Path, flag: str | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file, or None. One that is named (flag, MAILTUI_CONFIG) counts even if it does not exist."""
    named = flag or environ.get("MAILTUI_CONFIG")
    if named:
        return Path(named).absolute()
    for path in (SYSTEM_CONFIG, state / "mailtui.toml"):
        if path.exists():
            return path
    return None
