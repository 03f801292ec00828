"""What the documents say is true where keys are required: a part of it here, the whole in `make soak`."""

from tests.integration.security.conftest import Guarded
from tests.schemathesis_run import SHORT, run_schemathesis


def test_a_part_of_the_document_is_true_where_keys_are_required(guarded: Guarded) -> None:
    """Schemathesis sends each request without the key, and with a wrong one, too, and expects 401."""
    run_schemathesis(guarded.ingestion.url, SHORT, guarded.keys["ingest"], r"^/(queue|texts/\{id\})$")
