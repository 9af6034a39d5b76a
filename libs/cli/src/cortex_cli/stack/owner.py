"""The first administrator of a home: made at the first start, with a one-time password that is shown and not kept."""

from dataclasses import dataclass, field

from cortex_cli.adapters.admin_api import AdminApi
from cortex_cli.errors import CliError
from cortex_cli.shapes import as_object

_EXISTS = "owner_exists"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who signs in first, and how."""

    username: str
    password: str = field(repr=False)


async def first_owner(api: AdminApi) -> Owner | None:
    """Make the first administrator; None when there is one already.

    Raises:
        CliError: the registry refuses for another reason.
    """
    try:
        made = await api.call("POST", "/admin/bootstrap-owner")
    except CliError as error:
        if error.code == _EXISTS:
            return None
        raise
    return Owner(str(as_object(made.get("user")).get("username")), str(made.get("one_time_password")))


async def sign_in_link(api: AdminApi, console_url: str) -> str:
    """A link that signs the first administrator in once.

    Raises:
        CliError: there is nobody to sign in, or the registry refuses.
    """
    made = await api.call("POST", "/admin/auth/sign-in-codes")
    return f"{console_url}/sign-in/link?code={made.get('code')}"


def link_notice(link: str) -> str:
    """What is shown of a link."""
    return "\n".join(["Open the console with this link, which is good once and for ten minutes:", "", f"  {link}", ""])


def notice(owner: Owner) -> str:
    """What is shown of them, this once."""
    return "\n".join(
        [
            "The first administrator of this Cortex (the password is shown this once):",
            "",
            f"  user name          {owner.username}",
            f"  one-time password  {owner.password}",
            "",
            f"Sign in with `cortex login --user {owner.username}`, which asks for a password of your own.",
            "",
        ]
    )
