"""What a process counts, in the words of Prometheus, and the only importer of prometheus_client."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]

# A second series of each counter, for formats that we do not speak.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's oversight

#: Bounds of what a person waits for, in seconds.
_WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)

TURNS = Counter("m3_turns", "Turns of the agent that ended.", ["lane", "outcome"])
TURNS_RUNNING = Gauge("m3_turns_running", "Turns of the agent that run just now.")
TURN_SECONDS = Histogram(
    "m3_turn_duration_seconds", "From a turn's start to its end at the model.", ["lane"], buckets=_WAITS
)
FIRST_TOKEN_SECONDS = Histogram(
    "m3_turn_first_token_seconds", "From a turn's start to the model's first text.", ["lane"], buckets=_WAITS
)
TOKENS = Counter("m3_model_tokens", "Tokens that the model read and wrote.", ["kind"])
MODEL_ERRORS = Counter("m3_model_errors", "Times that the model was asked in vain.", ["kind"])
PASSED_OVER = Counter("m3_messages_passed_over", "Messages that got a fate without a turn.", ["fate"])


def exposition() -> bytes:
    """All of it, as Prometheus scrapes it."""
    return generate_latest()
