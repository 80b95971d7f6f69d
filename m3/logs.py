"""Logs: for people on a terminal, one JSON object a line elsewhere."""

import logging
import sys

import structlog


def set_up_logs(level: str) -> None:
    """Send our own and the libraries' records to stderr in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        # The pretty tracebacks show local variables, and with them passwords.
        plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        rendering: list[structlog.typing.Processor] = [plain]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # the libraries' routine talk is not the operator's
    for ours in ("m3", "services"):
        logging.getLogger(ours).setLevel(level.upper())
    for tells_again in ("aiormq", "aio_pika"):  # what they log they also raise, and we log that
        logging.getLogger(tells_again).setLevel(logging.CRITICAL)
