"""A client that keeps a copy of the labels by following GET /changes."""

from typing import Any

from starlette.testclient import TestClient

Page = dict[str, Any]
Items = dict[str, dict[str, Any]]


class Mirror:
    """Labelled texts by their ids, as the changes say."""

    def __init__(self, **parameters: Any) -> None:
        self.items: Items = {}
        self.since = 0
        self._parameters = parameters

    def read(self, client: TestClient) -> int:
        """Apply one page; return how many changes it had."""
        page = client.get("/changes", params=self._parameters | {"since": self.since}).raise_for_status().json()
        ids = [change["id"] for change in page["items"]]
        versions = [change["version"] for change in page["items"]]
        assert len(ids) == len(set(ids))
        assert versions == sorted(versions)
        assert page["next"] == (versions[-1] if versions else self.since)
        assert all(version > self.since for version in versions)
        for change in page["items"]:
            self.apply(change)
        self.since = page["next"]
        return len(ids)

    def apply(self, change: dict[str, Any]) -> None:
        """Apply one change."""
        item = {name: value for name, value in change.items() if name not in {"op", "version"}}
        if change["op"] == "delete":
            assert item.keys() == {"id", "dataset"}
            self.items.pop(change["id"], None)
        else:
            self.items[change["id"]] = item

    def read_all(self, client: TestClient) -> None:
        """Apply pages until there is nothing new."""
        while self.read(client):
            pass


def all_texts(client: TestClient, dataset: str = "toxicity") -> Items:
    """Return what GET /texts shows, by id."""
    items: Items = {}
    parameters: dict[str, Any] = {"limit": 1000, "dataset": dataset}
    while True:
        page = client.get("/texts", params=parameters).raise_for_status().json()
        items |= {item["id"]: item for item in page["items"]}
        if page["next_cursor"] is None:
            return items
        parameters["cursor"] = page["next_cursor"]
