"""`python -m cortex_registry` serves; `migrate [--check]` brings the database up to date; `openapi` prints the API."""

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
    from cortex_kit.runner import run  # noqa: PLC0415 - `migrate` is on the way of every start and needs none of it
    from cortex_registry.app import build  # noqa: PLC0415 - as above

    run(Settings(), build)  # pyright: ignore[reportCallIssue] - read from the environment


if __name__ == "__main__":
    main()
