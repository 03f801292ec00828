"""What an answer of the ingestion API must hold, by what was sent."""

from core.datasets import DEFAULT_DATASET
from core.text_identity import normalise, text_id
from load_testing.users.answers import Answer, expect

_STATUSES = {"pending", "uploaded", "labelled", "failed", "near_duplicate"}


def id_of(text: str, dataset: str = DEFAULT_DATASET) -> str:
    """Return the id that the platform must give to a text."""
    return str(text_id(dataset, normalise(text)))


def check_stored(status: int, answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check the answer to a text that was never sent before.

    Raises:
        WrongAnswer: it says something else.
    """
    expect("id", answer["id"], id_of(text, dataset))
    expect("duplicate (was this seed used on this platform before?)", answer["duplicate"], False)
    expect("status code", status, 201)


def check_repeated(status: int, answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check the answer to a text that had been acknowledged before.

    Raises:
        WrongAnswer: it says something else.
    """
    expect("id", answer["id"], id_of(text, dataset))
    expect("duplicate", answer["duplicate"], True)
    expect("status code", status, 200)


def check_bulk(answer: Answer, accepted: int, duplicates: int, rejected: int) -> None:
    """Check the counts of a bulk upload; its rejected rows come last.

    Raises:
        WrongAnswer: they do not add up, or name other rows.
    """
    counts = tuple(answer[name] for name in ("received", "accepted", "duplicates", "rejected"))
    sent = accepted + duplicates + rejected
    expect("received, accepted, duplicates, rejected", counts, (sent, accepted, duplicates, rejected))
    rows = [error["row"] for error in answer["errors"]]
    expect("rejected rows", rows, list(range(accepted + duplicates + 1, sent + 1))[:100])


def check_status(answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check `GET /texts/{id}` of an acknowledged text.

    Raises:
        WrongAnswer: it is another text, or in no known status.
    """
    expect("id", answer["id"], id_of(text, dataset))
    expect("text", answer["text"], text)
    expect("status is known", answer["status"] in _STATUSES, True)


def check_queue(answer: Answer) -> None:
    """Check that no count of `GET /queue` is negative.

    Raises:
        WrongAnswer: one is.
    """
    for name in ("pending", "uploading", "uploaded", "failed", "open_records"):
        expect(f"{name} is a count", isinstance(answer[name], int) and answer[name] >= 0, True)
