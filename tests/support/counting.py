"""What this process counts. All tests share it, so they look at what it grew by."""

from prometheus_client import REGISTRY

Key = tuple[str, frozenset[tuple[str, str]]]


def counted(name: str, **labels: str) -> float:
    """What is shown of one series now. Raises KeyError where there is none."""
    return _samples()[name, frozenset(labels.items())]


class Since:
    """What has been counted since this was made."""

    def __init__(self) -> None:
        self._before = _samples()

    def counted(self, name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return _samples()[key] - self._before.get(key, 0)


def _samples() -> dict[Key, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }
