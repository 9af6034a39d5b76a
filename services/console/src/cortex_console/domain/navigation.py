"""Where people may be sent after signing in."""

from urllib.parse import urlencode

HOME = "/"
SIGN_IN = "/sign-in"
CHANGE_PASSWORD = "/change-password"
MAX_TARGET = 500


def safe_target(wanted: str | None) -> str:
    """A path of this console; the home page for anything else, addresses of other sites above all."""
    if not wanted or len(wanted) > MAX_TARGET or not wanted.startswith("/"):
        return HOME
    if wanted.startswith(("//", "/\\")) or any(ord(c) < 33 or c == "\\" for c in wanted):
        return HOME
    if wanted.partition("?")[0] in (SIGN_IN, CHANGE_PASSWORD):
        return HOME
    return wanted


def sign_in_address(target: str = HOME, reason: str = "") -> str:
    """Where to sign in and come back from."""
    query = {name: value for name, value in (("next", target), ("reason", reason)) if value and value != HOME}
    return f"{SIGN_IN}?{urlencode(query)}" if query else SIGN_IN
