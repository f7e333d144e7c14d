"""What the worker counts, for Prometheus. Labels are names of segmenters, outcomes and priorities: never UIDs."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

OUTCOMES = Counter("anamnesis_indexing_outcomes_total", "Messages worked off, by what came of them", ["segmenter", "outcome"])
DURATION_S = Histogram(
    "anamnesis_indexing_duration_seconds",
    "From a message to its recorded index",
    ["segmenter"],
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800),
)
REQUESTED = Counter("anamnesis_indexing_requested_total", "Requests made because a series became quiet", ["segmenter"])
SENT = Counter("anamnesis_indexing_messages_sent_total", "Messages sent; again: because nobody worked on the request", ["priority", "again"])
STANDING = Gauge("anamnesis_indexing_standing", "Requests that stand", ["segmenter", "priority"])
OLDEST_S = Gauge("anamnesis_indexing_oldest_standing_seconds", "Age of the oldest request that stands", ["segmenter", "priority"])
READY = Gauge("anamnesis_segmenter_ready", "1 when the segmenter can run here", ["segmenter"])
LEADS = Gauge("anamnesis_dispatcher_leads", "1 in the one process that dispatches")
