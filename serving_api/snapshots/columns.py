"""The columns of a snapshot's files: their types, and what they mean."""

from typing import NamedTuple

from serving_api.columns import COLUMNS as EXPORTED


class Column(NamedTuple):
    """A column of every split."""

    type: str  # as Apache Arrow, and Hugging Face's `datasets`, name it
    meaning: str


MOMENT = "timestamp[us, tz=UTC]"

_DESCRIBED = {
    "id": Column("string", "UUID; a function of dataset and text alone."),
    "dataset": Column("string", "Dataset that the text belongs to."),
    "text": Column("string", "The text, after Unicode NFC and stripping outer white space."),
    "label": Column("string", "What the annotations add up to, by `rule`; null where they are disputed."),
    "status": Column("string", "`labelled` or `disputed`."),
    "agreement": Column("float64", "Share of the label, or of the most frequent one, among the votes."),
    "votes": Column("string", "JSON object: submitted annotations by label."),
    "annotations": Column("int32", "Number of submitted annotations."),
    "confidence": Column(
        "float64", "Probability of the label by `rule`; of a majority, its share; null where there is none."
    ),
    "rule": Column("string", "How the annotations were added up."),
    "rule_version": Column("int32", "Counts up with each estimate of the rule."),
    "decided_by": Column("string", "`annotators` or `adjudicators`: whose answers the label follows from."),
    "source": Column("string", "Where the text came from, as its sender said."),
    "external_id": Column("string", "The sender's own id of the text."),
    "claimed_label": Column("string", "The sender's claim; it counts for nothing."),
    "score": Column("float64", "How sure the sender was of it, 0 to 1."),
    "metadata": Column("string", "JSON object: what else the sender said."),
    "enrichment": Column("string", "JSON object: what was found at intake, as `language` and `redacted`."),
    "received_at": Column(MOMENT, "When the text was received."),
    "labelled_at": Column(MOMENT, "When the first label was known; edits keep it."),
}

COLUMNS = {name: _DESCRIBED[name] for name in EXPORTED}
