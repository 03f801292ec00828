"""The dataset card of a snapshot: Markdown with YAML in front.

Written by hand: huggingface_hub's DatasetCard would replace only the dump of the YAML, takes 1.5 s and 40 MiB to
import, and needs jinja2 for its template, which mypy and ruff do not check. Tests read the card with it.
"""

import json
import re
from typing import Any

import yaml

from core.datasets import LabelRule
from serving_api.columns import COLUMNS
from serving_api.snapshots.manifest import Facts, SnapshotManifest, describe
from serving_api.statistics.agreement import Coefficient


def literal(value: object) -> str:
    """Return a value as JSON in a code span on one line, in which Markdown interprets no character.

    Backticks and vertical bars would end the span or a table cell: they are escaped as in JSON, as are invisible
    characters.
    """
    shown = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"`{''.join(c if c.isprintable() and c not in '`|' else _escape(c) for c in shown)}`"


def fenced(markdown: str) -> str:
    """Return a text in a fenced code block. The fence is longer than any run of backticks in the text."""
    longest = max((len(ticks) for ticks in re.findall("`+", markdown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}markdown\n{markdown.strip()}\n{fence}"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


# The Hub's size categories, by the number of digits from three on.
_MAGNITUDES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
# The Hub accepts codes of ISO 639. Below this share of the texts, the detector may be wrong.
_LANGUAGE = re.compile("[a-z]{2,3}")
_UNKNOWN_LANGUAGE = "und"
_LANGUAGE_SHARE = 0.01


def make_front_matter(manifest: SnapshotManifest, facts: Facts) -> str:
    """Return the YAML in front of the card, without the lines around it."""
    files = [{"split": name, "path": split.path} for name, split in manifest.splits.items()]
    splits = [
        {"name": name, "num_bytes": split.memory_bytes, "num_examples": split.rows}
        for name, split in manifest.splits.items()
    ]
    matter: dict[str, Any] = {
        "pretty_name": manifest.dataset,
        "license": facts.license,
        "language": list_languages(facts),
        "task_categories": ["text-classification"],
        "size_categories": [_magnitude(manifest.rows)],
        "tags": ["human-annotated", "croissant"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {
            "features": [{"name": name, "dtype": column.arrow_type} for name, column in COLUMNS.items()],
            "splits": splits,
            "download_size": manifest.bytes,
            "dataset_size": sum(split.memory_bytes for split in manifest.splits.values()),
        },
    }
    # ASCII without line breaks in values: no value can look like the end of the YAML.
    dumped: str = yaml.safe_dump(
        {key: value for key, value in matter.items() if value}, sort_keys=False, width=10**9
    )
    return dumped


def list_languages(facts: Facts) -> list[str]:
    """Return the ISO 639 codes of the languages of at least a hundredth of the texts."""
    return [
        code
        for code, texts in facts.languages.items()
        if _LANGUAGE.fullmatch(code) and code != _UNKNOWN_LANGUAGE and texts >= _LANGUAGE_SHARE * facts.texts
    ]


def _magnitude(texts: int) -> str:
    return _MAGNITUDES[min(max(len(str(texts)), 3) - 3, len(_MAGNITUDES) - 1)]


_DISPUTED = "null"  # the manifest's name of texts without a label
_RULES = {
    LabelRule.MAJORITY: "The label of most annotators; a tie is disputed.",
    LabelRule.DAWID_SKENE: "The most probable label, given each annotator's confusions (Dawid and Skene 1979).",
    LabelRule.MACE: "The most probable label, given each annotator's rate of guesses (MACE, Hovy et al. 2013).",
    LabelRule.GLAD: "The most probable label, given abilities and texts' difficulty (GLAD, Whitehill 2009).",
}
_COEFFICIENTS = {
    "krippendorff_alpha": "Krippendorff's alpha (nominal)",
    "fleiss_kappa": "Fleiss' kappa",
    "observed_agreement": "Observed agreement",
}
_NEAR_DUPLICATES = {
    "off": "Near duplicates were not searched.",
    "link": "Near duplicates are linked.",
    "ask_once": "Near duplicates are linked, and annotators label one of them.",
}
_ORDINARY_COLUMNS = ("text", "label")


def make_card(manifest: SnapshotManifest, facts: Facts) -> str:
    """Return README.md. It contains no time of the manifest."""
    sections = [
        _head(manifest, facts),
        _labels(manifest, facts),
        _agreement(facts),
        _annotators(facts),
        f"## Guidelines\n\nThe annotators' latest guidelines, as Markdown:\n\n{fenced(facts.guidelines)}",
        _rule(facts),
        _sources(facts),
        _languages(facts),
        _splits(manifest, facts),
        _loading(manifest),
        _columns(),
        _licence(facts),
    ]
    return f"---\n{make_front_matter(manifest, facts)}---\n\n" + "\n\n".join(sections) + "\n"


def _head(manifest: SnapshotManifest, facts: Facts) -> str:
    filters = [f"- `{name}`: {_filter(name, value)}" for name, value in sorted(manifest.filters.items())]
    chosen = "\n".join(["It contains the texts that match these filters:\n", *filters]) if filters else ""
    return f"""# {manifest.dataset}

{_number(manifest.rows, "text", "texts")}, labelled by people. This is the snapshot
{literal(manifest.name)} of version {manifest.version} of the labels: its files never change. SHA-256 over its
splits: `{manifest.content_hash}`.

{chosen or "It contains all texts that were labelled or disputed."}{_rewritten(manifest, facts)}"""


def _rewritten(manifest: SnapshotManifest, facts: Facts) -> str:
    if manifest.rewritten_at is None:
        return ""
    gone = _number(facts.texts - manifest.rows, "text was", "texts were")
    return f"""

{gone} removed from it after it was written. The numbers of labels and splits below are new;
the other figures are from before."""


def _filter(name: str, value: object) -> str:
    # The card names no annotator.
    return "one annotator" if name == "annotator" else literal(value)


def _labels(manifest: SnapshotManifest, facts: Facts) -> str:
    counted = {label for split in manifest.splits.values() for label in split.labels} - {_DISPUTED}
    labels = [*facts.labels, *sorted(counted - {*facts.labels})]
    rows = [_label_row(manifest, label, f"`{label}`") for label in labels]
    rows.append(_label_row(manifest, _DISPUTED, "disputed, without a label"))
    rows.append(["all", *(f"{split.rows:,}" for split in manifest.splits.values()), f"{manifest.rows:,}"])
    return "## Labels\n\n" + _table(["label", *(f"`{name}`" for name in manifest.splits), "all"], rows)


def _label_row(manifest: SnapshotManifest, label: str, shown: str) -> list[str]:
    counts = [split.labels.get(label, 0) for split in manifest.splits.values()]
    return [shown, *(f"{count:,}" for count in counts), f"{sum(counts):,}"]


def _agreement(facts: Facts) -> str:
    rows = [_estimate(shown, facts.agreement[name]) for name, shown in _COEFFICIENTS.items()]
    table = _table(["coefficient", "value", "95 % interval", "texts"], rows)
    return f"""## Agreement

Agreement of the annotators on texts with two or more answers. Intervals are percentiles of 1,000 bootstrap
samples of the texts. "undefined": there are no such texts, or all answers are the same label.{_base(facts)}

{table}"""


def _estimate(shown: str, one: Coefficient) -> list[str]:
    value = "undefined" if one.value is None else f"{one.value:.3f}"
    interval = "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"
    return [shown, value, interval, f"{one.n:,}"]


def _base(facts: Facts) -> str:
    if not facts.agreement_without:
        return ""
    names = ", ".join(f"`{name}`" for name in facts.agreement_without)
    return f"""

Measured before these filters, so on more texts than the snapshot contains: {names}. They choose texts by their
answers, so agreement among the chosen texts alone would be too high or too low."""


def _annotators(facts: Facts) -> str:
    answers = facts.answers
    mean = answers.total / facts.texts if facts.texts else 0
    adjudicated = facts.decided_by.get("adjudicators", 0)
    return f"""## Annotators

{_number(answers.annotators, "annotator", "annotators")} gave {_number(answers.total, "answer", "answers")}: from
{answers.fewest:,} to {answers.most:,} a text, {mean:.2f} on average; {facts.answers_wanted:,} complete a text.
{_number(answers.adjudicators, "adjudicator", "adjudicators")} answered about disputes, and decided
{_number(adjudicated, "label", "labels")}. No column contains the name of an annotator."""


def _rule(facts: Facts) -> str:
    rows = [
        [
            f"`{rule.name}`",
            _RULES[LabelRule(rule.name)],
            f"{rule.first_version} to {rule.last_version}",
            f"{rule.texts:,}",
        ]
        for rule in facts.rules
    ]
    return "## Label rule\n\n" + _table(["rule", "label", "versions", "texts"], rows)


def _sources(facts: Facts) -> str:
    head = f"## Sources\n\n{_number(facts.sources_total, 'source', 'sources')}, with the names that senders gave."
    rows = [[literal(name), f"{texts:,}"] for name, texts in facts.sources.items()]
    return f"{head} The most frequent:\n\n{_table(['source', 'texts'], rows)}" if rows else head


def _languages(facts: Facts) -> str:
    rows = [[literal(code), f"{texts:,}"] for code, texts in facts.languages.items()]
    table = f"Found by a detector (BCP 47; `und`: uncertain).\n\n{_table(['language', 'texts'], rows)}"
    return f"## Languages\n\n{table if rows else 'Languages were not detected.'}"


def _splits(manifest: SnapshotManifest, facts: Facts) -> str:
    rows = [
        [f"`{name}`", f"{manifest.shares[name]:.6g}", f"{split.rows:,}", f"`{split.path}`", f"`{split.sha256}`"]
        for name, split in manifest.splits.items()
    ]
    by_label = "Stratified: the texts of each label are divided in these shares, as exactly as possible."
    stratified = by_label if manifest.stratified else "Not stratified: splits do not depend on labels."
    return f"""## Splits

A text's split follows from its id and the seed {manifest.seed}: every later snapshot with the same seed and shares
has it in the same split. {stratified}

{_NEAR_DUPLICATES[facts.near_duplicates]}
{_number(facts.near_twins, "text is", "texts are")} linked to an earlier one. Linked texts share a split.

{_table(["split", "share", "texts", "file", "SHA-256"], rows)}"""


def _loading(manifest: SnapshotManifest) -> str:
    split = next(iter(manifest.splits))
    path = manifest.splits[split].path
    columns = ", ".join(_ORDINARY_COLUMNS)
    quoted = ", ".join(f'"{name}"' for name in _ORDINARY_COLUMNS)
    return f"""## How to load it

From its folder. From the serving API, `{path}` is `http://…/snapshots/{manifest.name}/{split}.parquet`.

```python
import datasets, duckdb, pandas, polars

datasets.load_dataset(".")  # the folder; or the name of the dataset on the Hub
pandas.read_parquet("{path}", columns=[{quoted}])
polars.scan_parquet("{path}").select({quoted}).collect()
duckdb.sql("select {columns} from '{path}'")
```"""  # noqa: S608 - an example


def _columns() -> str:
    rows = [[f"`{name}`", f"`{column.arrow_type}`", describe(column)] for name, column in COLUMNS.items()]
    return "## Columns\n\n" + _table(["column", "type", "meaning"], rows)


def _licence(facts: Facts) -> str:
    if facts.license:
        return f"## Licence\n\n{literal(facts.license)}, set by the dataset's owner."
    return "## Licence\n\nNone was set. The owner of the texts decides, and adds `license:` to the YAML above."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
