"""The OpenAPI document: fit for programs that know nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.edge import OPEN_PATHS
from ramify.serving.server import Server


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Server(ServerConfig({"nano": "nano"}, storage_url=":memory:"))).openapi()


def test_every_operation_names_its_errors_in_the_usual_form_and_none_that_is_never_sent(
    document: dict[str, Any],
) -> None:
    error = {"schema": {"$ref": "#/components/schemas/ErrorBody"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            assert "422" not in answers
            assert {"400", "401", "404", "429", "500"} <= set(answers), path
            assert answers["400"]["content"]["application/json"] == error, path
    assert {"message", "type", "param", "code"} == set(document["components"]["schemas"]["ErrorDetail"]["properties"])


def test_every_operation_but_the_open_ones_takes_a_key(document: dict[str, Any]) -> None:
    assert {"bearer": []} in document["security"]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    opened = {
        path for path, each in document["paths"].items() if any(one.get("security") == [] for one in each.values())
    }
    assert opened == OPEN_PATHS & set(document["paths"])


def test_names_of_operations_are_unique(document: dict[str, Any]) -> None:
    names = [one["operationId"] for each in document["paths"].values() for one in each.values()]
    assert len(names) == len(set(names))
