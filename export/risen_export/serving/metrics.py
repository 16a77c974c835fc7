"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from risen_export.engine.answering import Stats

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server.

    The engine's numbers are those of :attr:`stats`, which whoever asks renews before.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stats: Stats | None = None
        self.requests = Counter(
            "risen_requests",
            "Requests that were answered, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.answers = Counter(
            "risen_answers",
            "Answers by model, and why they ended.",
            ["model", "finish"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "risen_tokens",
            "Tokens by model: read of prompts, written of answers.",
            ["model", "kind"],
            registry=self.registry,
        )
        self.seconds = self._histogram("risen_request_seconds", "From request to last byte.")
        self.first = self._histogram("risen_first_token_seconds", "From request to first token.")
        self.between = self._histogram("risen_token_seconds", "Of a token after the first one.")
        self.registry.register(_OfEngine(self))

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(name, meaning, buckets=_SECONDS, registry=self.registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _OfEngine(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        stats = self._metrics.stats
        if stats is None:
            return
        for name, meaning, value in (
            ("running", "Answers that are being written.", stats.running),
            ("waiting", "Answers that wait for a row.", stats.waiting),
            ("rows", "Answers that can be written at once.", stats.rows),
            ("cache_bytes", "Of keys and values.", stats.cache_bytes),
        ):
            yield GaugeMetricFamily(f"risen_engine_{name}", meaning, value=value)
        for name, meaning, value in (
            ("read_tokens", "Tokens of prompts that were read.", stats.read),
            ("reused_tokens", "Tokens of prompts that had been read before.", stats.reused),
            ("written_tokens", "Tokens of answers.", stats.written),
            ("steps", "Runs of the graph over all rows.", stats.steps),
        ):
            yield CounterMetricFamily(f"risen_engine_{name}", meaning, value=value)
