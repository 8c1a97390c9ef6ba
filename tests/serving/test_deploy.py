"""The files of deploy/: they name paths, options and metrics that exist, and hold together among themselves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ramify.serving.config import ServerConfig
from ramify.serving.metrics import Metrics, metric_names
from ramify.serving.options import OPTIONS, server_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OURS = re.compile(r"\b((?:vllm|ramify|process|python)[:_][a-z0-9_:]+)")
GRACE_S = 15
"""What closing takes at most, besides the drain."""


@pytest.fixture(scope="module")
def series() -> set[str]:
    """Every name that a scrape can have."""
    names: set[str] = set()
    for name, kind, _ in metric_names(Metrics(dict).registry):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def expressions(node: Any) -> Iterator[str]:
    """All PromQL in a file, wherever it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "metricsQuery", "seriesQuery") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for each in node:
            yield from expressions(each)


def documents(path: Path) -> list[Any]:
    if path.suffix == ".json":
        return [json.loads(path.read_text())]
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


@pytest.mark.parametrize("path", sorted([*DEPLOY.rglob("*.json"), *DEPLOY.rglob("*.y*ml")]), ids=lambda path: path.name)
def test_a_file_parses_and_asks_only_for_metrics_that_exist(path: Path, series: set[str]) -> None:
    asked = {name for text in expressions(documents(path)) for name in OURS.findall(text)}
    assert asked <= series
    if path.name in ("ramify.json", "alerts.yml", "prometheus-adapter.yaml"):
        assert asked


def test_every_panel_of_the_dashboard_has_a_place_of_its_own_and_something_to_show() -> None:
    (dashboard,) = documents(DEPLOY / "grafana" / "ramify.json")
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
        for target in panel.get("targets", ()):
            assert all(target["expr"].count(left) == target["expr"].count(right) for left, right in ("()", "{}", "[]"))


def kubernetes() -> dict[str, Any]:
    return {document["kind"]: document for document in documents(DEPLOY / "kubernetes" / "ramify.yaml")}


def test_the_kubernetes_objects_fit_together() -> None:
    found = kubernetes()
    deployment = found["Deployment"]["spec"]
    pod, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    for selector in (
        deployment["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert container["ports"][0]["containerPort"] == server_options()["port"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/health", "/ready")
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    adapter = documents(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")[0]
    made = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    assert {metric["pods"]["metric"]["name"] for metric in found["HorizontalPodAutoscaler"]["spec"]["metrics"]} <= made
    security = pod["securityContext"] | container["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert not pod["automountServiceAccountToken"]


def server_options() -> dict[str, Any]:
    return tomllib.loads(kubernetes()["ConfigMap"]["data"]["ramify.toml"])


def test_whoever_ends_the_server_waits_longer_than_it_drains(tmp_path: Path) -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    before_s = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before_s + server_options()["drain_timeout_s"] + GRACE_S
    unit = (DEPLOY / "systemd" / "ramify.service").read_text()
    options = tomllib.loads((DEPLOY / "systemd" / "ramify.toml").read_text())
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop_s is not None
    assert int(stop_s[1]) >= options["drain_timeout_s"] + GRACE_S


@pytest.mark.parametrize("place", ["systemd", "kubernetes"])
def test_the_options_in_the_files_are_options_of_the_server(place: str, tmp_path: Path) -> None:
    path = tmp_path / "ramify.toml"
    if place == "systemd":
        shutil.copy(DEPLOY / "systemd" / "ramify.toml", path)
    else:
        path.write_text(kubernetes()["ConfigMap"]["data"]["ramify.toml"])
    config = server_config({}, path)
    assert isinstance(config, ServerConfig)
    assert config.models == {"nano": "nano"}


def test_the_variables_in_the_files_are_variables_of_the_server() -> None:
    known = {option.variable for option in OPTIONS}
    for path in (path for path in DEPLOY.rglob("*") if path.is_file()):
        told = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
        assert set(re.findall(r"\bRAMIFY_[A-Z_]+\b", told)) <= known, path


def test_the_image_is_built_from_files_that_exist_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    sources = [
        source for kind, rest in steps if kind == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    ]
    assert sources
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for source in sources:
        assert (ROOT / source).exists()
        assert source.rstrip("/") in allowed
    kinds = [kind for kind, _ in steps]
    assert kinds.count("FROM") == 2
    assert kinds[-2:] == ["ENTRYPOINT", "CMD"]
    assert ["USER", "10001:10001"] in steps
    assert "HEALTHCHECK" in kinds
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r'"\.\[(.*?)\]"', text)
    assert asked is not None
    assert set(asked[1].split(",")) <= extras.keys()
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_one_that_systemd_takes_and_holds_safe(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "ramify.service").read_text()
    path = tmp_path / "ramify.service"
    path.write_text(unit.replace("/opt/ramify/bin/ramify", shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "ramify.service" in line]
    assert not complaints
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes", "CapabilityBoundingSet="):
        assert f"\n{line}\n" in unit
