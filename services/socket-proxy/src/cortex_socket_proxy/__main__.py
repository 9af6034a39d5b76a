"""`python -m cortex_socket_proxy` serves."""

import logging
import os
import sys

import structlog
import uvicorn

from cortex_socket_proxy.proxy import SocketProxy, new_engine_client
from cortex_socket_proxy.settings import Settings


def main() -> None:
    """Check that the socket is usable, then serve until SIGTERM."""
    settings = Settings()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if not os.access(settings.socket, os.R_OK | os.W_OK):
        sys.exit(
            f"{settings.socket} cannot be used by uid {os.getuid()}: mount the Docker socket there and give this "
            "container its group (group_add: the number that `stat -c %g /var/run/docker.sock` prints)"
        )
    engine = new_engine_client(str(settings.socket), settings.connect_timeout_s)
    app = SocketProxy(engine, settings.policy, max_body_bytes=settings.max_body_bytes)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
