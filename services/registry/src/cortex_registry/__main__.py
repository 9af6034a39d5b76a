"""`python -m cortex_registry` serves; `migrate [--check]` brings the database up to date; `bootstrap-owner` makes the
first administrator; `sign-in-link` lets one in without a password; `openapi` prints the API."""

import argparse
import asyncio
import sys

from cortex_kit.logging import configure_logging, get_logger
from cortex_registry.adapters.migrate_command import run_migrations
from cortex_registry.settings import MigrationSettings, Settings


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="cortex_registry", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    migrate = commands.add_parser("migrate", help="apply the migrations that are missing")
    migrate.add_argument("--check", action="store_true", help="change nothing; exit with 1 unless all are applied")
    migrate.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="how long to wait for Postgres")
    commands.add_parser("openapi", help="print the OpenAPI description; needs no server and no settings")
    owner = commands.add_parser("bootstrap-owner", help="make the first administrator; prints a one-time password once")
    owner.add_argument("--username", default="owner")
    owner.add_argument("--org", default="default", metavar="NAME", help="name of their organisation")
    owner.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="how long to wait for Postgres")
    link = commands.add_parser("sign-in-link", help="print a link into the console, good once and for ten minutes")
    link.add_argument("--username", help="whom it signs in; the first administrator unless given")
    link.add_argument("--console", default="http://127.0.0.1:8082", metavar="URL", help="address of the console")
    link.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="how long to wait for Postgres")
    reseal = commands.add_parser("reseal", help="seal every stored secret with the present CORTEX_SECRET_KEY")
    reseal.add_argument("--check", action="store_true", help="change nothing; exit with 1 unless all are")
    arguments = parser.parse_args()
    if arguments.command == "openapi":
        from cortex_registry.openapi import render_openapi  # noqa: PLC0415 - imports the whole application

        sys.stdout.write(render_openapi())
        return
    if arguments.command == "migrate":
        settings = MigrationSettings()  # pyright: ignore[reportCallIssue] - read from the environment
        configure_logging("registry", "migrate", settings.log_level, settings.log_format)
        done = asyncio.run(run_migrations(settings.database_url, only_check=arguments.check, wait_s=arguments.wait))
        get_logger().debug("migrate_finished", succeeded=done)
        sys.exit(0 if done else 1)
    if arguments.command == "reseal":
        sys.exit(_reseal(only_check=arguments.check))
    if arguments.command == "bootstrap-owner":
        sys.exit(_bootstrap(arguments.username, arguments.org, arguments.wait))
    if arguments.command == "sign-in-link":
        sys.exit(_sign_in_link(arguments.username, arguments.console, arguments.wait))
    from cortex_kit.runner import run  # noqa: PLC0415 - `migrate` is on the way of every start and needs none of it
    from cortex_registry.app import build  # noqa: PLC0415 - as above

    run(Settings(), build)  # pyright: ignore[reportCallIssue] - read from the environment


def _bootstrap(username: str, org: str, wait_s: float) -> int:
    """The password goes to standard output and nowhere else; refusals to standard error."""
    from cortex_kit.errors import CortexError, DomainError  # noqa: PLC0415 - only this command needs them
    from cortex_registry.domain.users import normal_name, normal_username  # noqa: PLC0415 - as above
    from cortex_registry.wiring.bootstrap import bootstrap_owner  # noqa: PLC0415 - as above

    settings = MigrationSettings()  # pyright: ignore[reportCallIssue] - read from the environment
    configure_logging("registry", "bootstrap-owner", settings.log_level, settings.log_format)
    try:
        made = bootstrap_owner(settings, normal_username(username), normal_name(org), wait_s=wait_s)
        owner = asyncio.run(made)
    except (CortexError, ValueError) as error:
        code = f" [{error.code}]" if isinstance(error, DomainError) else ""
        sys.stderr.write(f"{error}{code}\n")
        return 1
    sys.stdout.write(f"user name: {owner.user.username}\none-time password: {owner.password}\n")
    return 0


def _sign_in_link(username: str | None, console: str, wait_s: float) -> int:
    """The link goes to standard output and nowhere else; refusals to standard error."""
    from cortex_kit.errors import CortexError  # noqa: PLC0415 - only this command needs it
    from cortex_registry.settings import ResealSettings  # noqa: PLC0415 - as above
    from cortex_registry.wiring.bootstrap import sign_in_code  # noqa: PLC0415 - as above

    settings = ResealSettings()  # pyright: ignore[reportCallIssue] - read from the environment
    configure_logging("registry", "sign-in-link", settings.log_level, settings.log_format)
    try:
        user, code, _ = asyncio.run(sign_in_code(settings, username, wait_s=wait_s))
    except CortexError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"Signs {user.username} in, once, within ten minutes:\n")
    sys.stdout.write(f"{console.rstrip('/')}/sign-in/link?code={code}\n")
    return 0


def _reseal(*, only_check: bool) -> int:
    """Counts go to standard output, refusals to standard error."""
    from cortex_kit.errors import CortexError  # noqa: PLC0415 - only this command needs it
    from cortex_registry.adapters.reseal import reseal_all  # noqa: PLC0415 - as above
    from cortex_registry.settings import ResealSettings  # noqa: PLC0415 - as above

    settings = ResealSettings()  # pyright: ignore[reportCallIssue] - read from the environment
    configure_logging("registry", "reseal", settings.log_level, settings.log_format)
    try:
        done = asyncio.run(
            reseal_all(settings.database_url, settings.secret_key, settings.secret_keys_old, only_check=only_check)
        )
    except CortexError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    left = sum(done.values())
    for place, count in sorted(done.items()):
        sys.stdout.write(f"{place}: {count}\n")
    sys.stdout.write(f"{left} secrets {'wait to be' if only_check else 'were'} sealed with the present key\n")
    return 1 if only_check and left else 0


if __name__ == "__main__":
    main()
