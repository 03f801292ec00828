"""What the serving API's OpenAPI document says is true, on a replica with labels."""

from pathlib import Path

import pytest

from tests.integration.security.conftest import add_key
from tests.integration.serving_api.labelling import Labeller
from tests.integration.serving_api.modelling import store_model, train
from tests.programs import running
from tests.schemathesis_run import PHASES, WHOLE, run_schemathesis


@pytest.fixture
def labelled(labeller: Labeller, tmp_path: Path) -> None:
    store_model(labeller.engine, tmp_path / "snapshots", train())
    for n in range(12):
        id_ = labeller.add_text(f"you are {n}", source="forum", score=0.91, metadata_={"language": "en", "n": n})
        labeller.annotate({id_: {"ada": "toxic", "grace": "toxic" if n % 3 else "non_toxic"}})


@pytest.mark.usefixtures("labelled")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("phases", PHASES)
def test_the_document_is_true(database_url: str, tmp_path: Path, phases: str) -> None:
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    with running("serving_api", env, tmp_path / "serving.log", probe="/readyz") as program:
        run_schemathesis(program.url, phases)


@pytest.mark.soak
@pytest.mark.usefixtures("labelled")
def test_the_document_is_true_where_keys_are_required(database_url: str, tmp_path: Path) -> None:
    key = add_key(database_url, "read", "admin")
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path), "REQUIRE_API_KEY": "true"}
    with running("serving_api", env, tmp_path / "serving.log", probe="/readyz") as program:
        run_schemathesis(program.url, WHOLE, key)
