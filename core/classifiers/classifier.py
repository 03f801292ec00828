"""A trained text classifier: TF-IDF of words and characters into calibrated logistic regression.

The file format is skops with plain types only (dict, str, numpy array). Loading runs no code from the file.
scikit-learn and numpy are imported inside functions: programs that score nothing start without them.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

# Longer texts are cut: their features cost time and say little more.
MOST_CHARACTERS = 5_000
# No term contains it: scikit-learn splits texts at white space.
_BETWEEN_TERMS = "\n"
# A longer word is no word, and would make the vocabulary large.
_WORD = r"(?u)\b\w{1,40}\b"
_TRUSTED = {("builtins", "dict"), ("builtins", "list"), ("builtins", "str"), ("numpy", "ndarray")}


class ForeignModel(ValueError):
    """The file is no classifier of ours; nothing of it was run."""


def make_vectorizers(**changes: Any) -> "tuple[TfidfVectorizer, TfidfVectorizer]":
    """Return the unfitted vectorizers: word 1-2-grams, and character 3-5-grams. `changes` are parameters."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    common: dict[str, Any] = {"sublinear_tf": True, "dtype": np.float32} | changes
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, **common)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
    return words, characters


def cut(texts: Sequence[str]) -> list[str]:
    """Return the part of each text that counts."""
    return [text[:MOST_CHARACTERS] for text in texts]


@dataclass(frozen=True)
class Parameters:
    """The learned numbers. One row of `weights` for each label; with two labels, one row for the second label."""

    labels: tuple[str, ...]
    words: tuple[str, ...]  # the vocabulary, in the order of the columns
    word_idf: "np.ndarray"
    characters: tuple[str, ...]
    character_idf: "np.ndarray"
    weights: "np.ndarray"  # [rows, words + characters], float32
    intercepts: "np.ndarray"  # [rows]
    slopes: "np.ndarray"  # [rows]; a score s has the probability 1 / (1 + exp(-(slope * s + offset)))
    offsets: "np.ndarray"  # [rows]


# What the file holds: these as bytes, and the numbers.
_TERMS = ("labels", "words", "characters")
_ARRAYS = [field.name for field in fields(Parameters)]


class _Features:
    """The features of one kind, and their weights: as scikit-learn computes them, for one text at a time.

    scikit-learn's own `transform` takes 5 ms for a single text, this 0.2 ms.
    """

    def __init__(self, analyze: Callable[[str], list[str]], terms: Sequence[str], idf: Any, weights: Any) -> None:
        self._analyze = analyze
        self._column = dict(zip(terms, range(len(terms)), strict=True)).get
        self._idf = idf
        self._weights = weights

    def score(self, text: str) -> "np.ndarray | float":
        """Return what these features add to the score of each row."""
        import numpy as np

        columns = [column for term in self._analyze(text) if (column := self._column(term)) is not None]
        if not columns:
            return 0.0
        found, counts = np.unique(columns, return_counts=True)
        values = (1 + np.log(counts)) * self._idf[found]
        score: np.ndarray = values @ self._weights[found] / np.sqrt(values @ values)
        return score


class Classifier:
    """Scores texts. Immutable; may be shared by threads."""

    def __init__(self, parameters: Parameters) -> None:
        self.labels = list(parameters.labels)
        self._parameters = parameters
        analyzers = [vectorizer.build_analyzer() for vectorizer in make_vectorizers()]
        weights = parameters.weights.T
        words = len(parameters.words)
        self._features = (
            _Features(analyzers[0], parameters.words, parameters.word_idf, weights[:words]),
            _Features(analyzers[1], parameters.characters, parameters.character_idf, weights[words:]),
        )

    @classmethod
    def load(cls, content: bytes) -> "Classifier":
        """Load the bytes that `save` returned.

        Raises:
            ForeignModel: they are no such file, or it holds a type beyond the trusted ones.
        """
        arrays = _read_arrays(content)
        values: dict[str, Any] = arrays | {name: _split(arrays[name]) for name in _TERMS}
        parameters = Parameters(**values)
        terms = len(parameters.words) + len(parameters.characters)
        if parameters.weights.shape != (_count_rows(parameters.labels), terms):
            raise ForeignModel("The parts of the model do not fit each other.")
        return cls(parameters)

    def save(self) -> bytes:
        """Return the model as skops; equal parameters give equal bytes."""
        import skops.io

        arrays = {name: getattr(self._parameters, name) for name in _ARRAYS}
        arrays |= {name: _join(arrays[name]) for name in _TERMS}
        return _normalise(skops.io.dumps(arrays))

    def probabilities(self, texts: Sequence[str]) -> "np.ndarray":
        """Return the probability of each label for each text, [texts, labels], float64; each row sums to 1."""
        import numpy as np

        scores = np.zeros((len(texts), len(self._parameters.intercepts)))
        for place, text in enumerate(cut(texts)):
            scores[place] = self._parameters.intercepts + sum(part.score(text) for part in self._features)
        return calibrate(scores, self._parameters.slopes, self._parameters.offsets)


def calibrate(scores: "np.ndarray", slopes: "np.ndarray", offsets: "np.ndarray") -> "np.ndarray":
    """Turn scores, [texts, rows], into probabilities of the labels, [texts, labels]."""
    import numpy as np
    from scipy.special import expit

    each = expit(scores.astype(np.float64) * slopes + offsets)
    if each.shape[1] == 1:
        return np.hstack([1 - each, each])
    # The smallest float: when no label is likely at all, all are equally so.
    each += np.finfo(np.float64).tiny
    normalised: np.ndarray = each / each.sum(axis=1, keepdims=True)
    return normalised


def _count_rows(labels: Sequence[str]) -> int:
    return 1 if len(labels) == 2 else len(labels)


def _join(terms: Sequence[str]) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(_BETWEEN_TERMS.join(terms).encode(), dtype=np.uint8)


def _split(array: "np.ndarray") -> tuple[str, ...]:
    content = array.tobytes().decode()
    return tuple(content.split(_BETWEEN_TERMS)) if content else ()


def _read_arrays(content: bytes) -> "dict[str, np.ndarray]":
    import numpy as np
    import skops.io

    try:
        foreign = _list_types(content) - _TRUSTED
        if foreign:
            raise ForeignModel(f"The model holds other types than plain ones: {sorted(foreign)}")
        arrays = skops.io.loads(content, trusted=[])
    except ForeignModel:
        raise
    except Exception as error:  # a damaged file fails anywhere in zip, JSON or numpy
        raise ForeignModel(f"The file is no model: {type(error).__name__}") from error
    if not isinstance(arrays, dict) or set(arrays) != set(_ARRAYS):
        raise ForeignModel("The file is no model of ours.")
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in "uf" for array in arrays.values()):
        raise ForeignModel("The model holds something else than numbers.")
    return arrays


# A skops file is a zip of `schema.json` and one `.npy` file for each array. skops names the arrays after memory
# addresses and stamps the entries with the time, so two dumps of equal objects differ.
_SCHEMA = "schema.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def _list_types(content: bytes) -> set[tuple[str, str]]:
    """Return module and name of every type in a skops file, without loading it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
    return {(node["__module__"], node["__class__"]) for node in _walk(schema) if "__class__" in node}


def _normalise(content: bytes) -> bytes:
    """Return the same skops file with numbers in place of memory addresses, and without times."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        numbers = count()
        files: dict[str, str] = {}
        for node in _walk(schema):
            if "__id__" in node:
                node["__id__"] = next(numbers)
            if "file" in node:
                node["file"] = files.setdefault(node["file"], f"{len(files)}.npy")
        entries = {_SCHEMA: json.dumps(schema, sort_keys=True).encode()}
        entries |= {new: archive.read(old) for old, new in files.items()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), entries[name], zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects within JSON, in the order of the document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)
