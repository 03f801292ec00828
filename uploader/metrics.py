"""The uploader's metrics for Prometheus."""

from prometheus_client import Counter, Enum, Gauge, Histogram

from core.metrics import LATENCY_BUCKETS, start_at_zero

_LONG_BUCKETS = (*LATENCY_BUCKETS, 30, 60, 120, 300, 1800, 3600)

FAILURES = ("refused", "broke_down", "not_visible", "unreadable")
MODEL_OUTCOMES = ("accepted", "refused")
# Values for a response that has none, and answers that are restored in a new dataset.
REPAIRS = ("response", "answers")

PENDING_TEXTS = Gauge("uploader_pending_texts", "Texts that wait to be uploaded", ["dataset"])
OLDEST_PENDING_SECONDS = Gauge("uploader_oldest_pending_seconds", "Age of the oldest pending text", ["dataset"])
WAITING_REFRESH_REQUESTS = Gauge(
    "uploader_waiting_notes",
    "Texts with an event whose answers are not yet read again from Argilla",
    ["dataset"],
)
OLDEST_REFRESH_REQUEST_SECONDS = Gauge(
    "uploader_oldest_note_seconds", "Age of the oldest waiting refresh request", ["dataset"]
)
DATABASE_BYTES = Gauge("uploader_database_bytes", "Size of the platform's database in Postgres")
OPEN_RECORDS = Gauge(
    "uploader_open_records",
    "Records with fewer answers than required, in Argilla or on their way there",
    ["dataset"],
)
# In the order of `repository.measure_backlog`.
BACKLOG = (
    PENDING_TEXTS,
    OLDEST_PENDING_SECONDS,
    OPEN_RECORDS,
    WAITING_REFRESH_REQUESTS,
    OLDEST_REFRESH_REQUEST_SECONDS,
)
BATCH_SECONDS = Histogram(
    "uploader_batch_seconds", "Time from claim to the end of a batch", ["dataset"], buckets=_LONG_BUCKETS
)
BATCH_STEP_SECONDS = Histogram(
    "uploader_batch_step_seconds",
    "Time of one step of a batch: claim, put (each PUT), confirm (each search), finish",
    ["dataset", "step"],
    buckets=_LONG_BUCKETS,
)
BATCH_TEXTS = Histogram(
    "uploader_batch_texts", "Texts in a batch", ["dataset"], buckets=(1, 2, 5, 10, 25, 50, 100, 150, 200, 250)
)
BATCH_EXTRA_PUTS = Counter(
    "uploader_batch_extra_puts_total",
    "PUTs beyond the first of a batch, to isolate bad records or repair",
    ["dataset"],
)
UPLOADED_TEXTS = Counter("uploader_uploaded_texts_total", "Texts that annotators can see", ["dataset"])
FAILED_TEXTS = Counter(
    "uploader_failed_texts_total",
    f"Texts that Argilla cannot take: {', '.join(FAILURES)}",
    ["dataset", "reason"],
)
RETRIED_TEXTS = Counter(
    "uploader_retried_texts_total",
    "Texts that went back to pending: outage, stopping, lease_ran_out, leader_changed",
    ["dataset", "reason"],
)
LOST_TEXTS = Counter(
    "uploader_lost_texts_total",
    "Texts whose claim was lost before their batch ended: others finish them",
    ["dataset"],
)
FORGOTTEN_TEXTS = Counter(
    "uploader_forgotten_texts_total", "Forgotten texts that were permanently deleted in Argilla", ["dataset"]
)
FORGET_OLDEST_SECONDS = Gauge(
    "uploader_forget_oldest_seconds",
    "Age of the oldest forget request that is not finished in all steps; 0 without one",
    ["dataset"],
)
LEADS = Gauge("uploader_leads", "1 while this process leads the work on a dataset", ["dataset"])
CIRCUIT_STATE = Enum(
    "uploader_argilla_circuit_state",
    "State of the circuit breaker: calls of Argilla are made, fail immediately, or wait for a test call",
    states=["closed", "open", "half_open"],
)
SWEEP_SECONDS = Histogram("uploader_sweep_seconds", "Time of a complete sweep", ["dataset"], buckets=_LONG_BUCKETS)
SWEEPS = Counter("uploader_sweeps_total", "Sweeps that began, by reason", ["dataset", "reason"])
SWEPT_TIMESTAMP_SECONDS = Gauge(
    "uploader_swept_timestamp_seconds", "When the last complete sweep ended, since 1970", ["dataset"]
)
SWEEP_CHANGED_TEXTS = Counter(
    "uploader_sweep_changed_texts_total", "Texts whose annotations a sweep found changed", ["dataset"]
)
LOST_EVENTS = Counter(
    "uploader_lost_events_total",
    "Texts whose annotations a sweep found changed for over ten seconds while a webhook was registered",
    ["dataset"],
)
COUNT_SECONDS = Histogram("uploader_count_seconds", "Time to compare Argilla's counts with ours", ["dataset"])
COUNT_DIFFERENCE = Gauge(
    "uploader_count_difference", "Responses and records by which Argilla's counts and ours differ", ["dataset"]
)
PULL_SECONDS = Histogram(
    "uploader_pull_seconds",
    "Time from the arrival of an event to its text's annotations being stored",
    ["dataset"],
    buckets=_LONG_BUCKETS,
)
PULL_CHANGED_TEXTS = Counter(
    "uploader_pull_changed_texts_total", "Texts whose annotations changed after an event", ["dataset"]
)
DELETED_RECORDS = Counter(
    "uploader_deleted_records_total", "Texts whose record was deleted in Argilla", ["dataset"]
)
WEBHOOK_REGISTERED = Gauge("uploader_webhook_registered", "1 while our webhook is registered correctly in Argilla")
WEBHOOK_RENEWALS = Counter("uploader_webhook_renewals_total", "Webhooks that were created or corrected in Argilla")
WEBHOOK_LATE = Gauge(
    "uploader_webhook_late", "1 while the received events do not explain the annotators' activity", ["dataset"]
)
UNSEEN_RECORDS = Counter(
    "uploader_unseen_records_total",
    "Records that a sweep found in Argilla's database, but not in its index",
    ["dataset"],
)
UNREADABLE_RECORDS = Counter(
    "uploader_unreadable_records_total", "Records on which Argilla failed when they were read", ["dataset"]
)
REFILLING = Gauge(
    "uploader_refilling", "1 while texts of a dataset that Argilla lost are put back into the queue", ["dataset"]
)
REPAIRED_TEXTS = Counter(
    "uploader_healed_texts_total",
    "Texts that were put back into the queue because Argilla lost them: dataset_lost, unseen",
    ["dataset", "reason"],
)
RESTORED_ANSWERS = Counter(
    "uploader_given_back_answers_total", "Annotators' answers that were written into a new dataset", ["dataset"]
)
KEPT_ANSWERS = Counter(
    "uploader_kept_answers_total",
    "Answers that could not be restored: Argilla does not know the annotator or the label",
    ["dataset"],
)
LOST_INDEXES = Counter(
    "uploader_lost_indexes_total", "Datasets that were set aside because their index was lost", ["dataset"]
)
REPAIRED_RESPONSES = Counter(
    "uploader_healed_responses_total", "Responses without values that would block their record", ["dataset"]
)
REFUSED_REPAIRS = Counter(
    "uploader_refused_repairs_total",
    f"Repairs that Argilla refused: {', '.join(REPAIRS)}",
    ["dataset", "repair"],
)
RULE_SECONDS = Histogram(
    "uploader_rule_seconds",
    "Time to read a dataset's answers and to estimate its label rule",
    ["dataset"],
    buckets=_LONG_BUCKETS,
)
RULE_ESTIMATED = Gauge(
    "uploader_rule_estimated_timestamp_seconds", "When the label rule was last estimated, since 1970", ["dataset"]
)
RULE_ANNOTATORS = Gauge("uploader_rule_annotators", "Annotators in the last estimate of the rule", ["dataset"])
RULE_REWRITTEN_LABELS = Counter(
    "uploader_rule_rewritten_labels_total", "Labels that an estimate changed, or their confidence", ["dataset"]
)
RULE_FAILURES = Counter(
    "uploader_rule_failures_total", "Estimates that gave no result: the former one stays in force", ["dataset"]
)
JOB_STOPPED = Gauge(
    "uploader_job_stopped",
    "1 while a job of a dataset (`task`: Prometheus has a `job` of its own) is blocked, by kind of reason",
    ["dataset", "task", "reason"],
)

MODEL_TRAINED = Gauge(
    "uploader_model_trained_timestamp_seconds", "When the active model was trained, Unix time", ["dataset"]
)
MODEL_SECONDS = Histogram(
    "uploader_model_training_seconds", "Time of one training of a model", ["dataset"], buckets=_LONG_BUCKETS
)
MODEL_DECISIONS = Counter(
    "uploader_model_trainings_total",
    f"Trained models by what became of them: {', '.join(MODEL_OUTCOMES)}",
    ["dataset", "outcome"],
)
MODEL_FAILURES = Counter(
    "uploader_model_failures_total", "Trainings and scorings that failed; the former model stays", ["dataset"]
)
MODEL_SUSPECTS = Gauge(
    "uploader_model_suspects_ratio", "Share of labels that the model finds rather wrong than right", ["dataset"]
)
MODEL_DRIFT = Gauge(
    "uploader_model_drift_psi",
    "Population stability index of the newest texts' scores against the training's; 0.25 and more is a shift",
    ["dataset", "source"],
)
MODEL_SCORED = Counter(
    "uploader_model_scored_texts_total", "Predictions of the model that were stored", ["dataset"]
)


def begin_model(dataset: str) -> None:
    """Show the counters of a dataset's model before anything has happened to it."""
    start_at_zero(MODEL_DECISIONS, *((dataset, outcome) for outcome in MODEL_OUTCOMES))
    for counter in (MODEL_FAILURES, MODEL_SCORED):
        start_at_zero(counter, dataset)


def begin(dataset: str) -> None:
    """Show a dataset's counters before anything has happened to it."""
    start_at_zero(UPLOADED_TEXTS, dataset)
    start_at_zero(FAILED_TEXTS, *((dataset, reason) for reason in FAILURES))
    start_at_zero(REFUSED_REPAIRS, *((dataset, repair) for repair in REPAIRS))
