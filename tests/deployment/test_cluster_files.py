"""The cluster's files, without a cluster: the launcher's own validator, KubeRay's fields, Serve's schema, the image."""

from __future__ import annotations

import copy
import functools
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay import faults
from packaging.version import Version

from idgbr.cli import parse_job

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "configs/kubernetes").glob("*.yaml"))
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|(ACCESS|API)_KEY|ROOT_USER", re.IGNORECASE)


def locked(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


def launcher_configs() -> dict[str, dict[str, Any]]:
    """The cloud's configuration, and the one its comments make of it for machines one has."""
    text = (ROOT / "ray_cluster.yaml").read_text()
    cloud = yaml.safe_load(text)
    comments = text.split("On-premise ---")[1].splitlines()[1:]
    lines = [line.removeprefix("#").removeprefix(" ") for line in comments]
    block = yaml.safe_load("\n".join(lines[lines.index("provider:") :]))
    replaced = ("provider", "auth", "docker", "head_node_type", "available_node_types", "max_workers")
    return {"cloud": cloud, "on-premise": {k: v for k, v in cloud.items() if k not in replaced} | block}


@pytest.mark.parametrize("variant", ["cloud", "on-premise"])
def test_the_launcher_takes_the_cluster(variant: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = launcher_configs()[variant]
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == config["max_workers"]
    with pytest.raises(Exception, match="head_start_ray_comands"):
        validate_config(prepare_config(config | {"head_start_ray_comands": []}))


def test_the_cloud_s_cluster_scales_three_kinds_of_nodes() -> None:
    cloud = launcher_configs()["cloud"]
    kinds = cloud["available_node_types"]
    assert kinds[cloud["head_node_type"]]["resources"]["CPU"] == 0
    assert "GPU" not in kinds["data"]["resources"]
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert all(kinds[name]["min_workers"] == 0 < kinds[name]["max_workers"] for name in ("data", "gpu"))


@functools.cache
def documents() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Every manifest, with the name of its file."""
    return tuple((path.name, found) for path in MANIFESTS for found in yaml.safe_load_all(path.read_text()))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for _, document in documents() if document["kind"] == kind]


def test_kuberay_has_every_field_it_asks_for() -> None:
    kinds = [document for _, document in documents() if document["apiVersion"] == "ray.io/v1"]
    assert sorted(document["kind"] for document in kinds) == ["RayCluster", "RayJob", "RayJob", "RayService"]
    for document in kinds:
        assert faults(document, document["kind"]) == []
    broken = copy.deepcopy(of_kind("RayCluster")[0])
    del broken["spec"]["workerGroupSpecs"][0]["groupName"]
    broken["spec"]["headGroupSpec"]["rayStartParams"] = {"num-cpus": 0}
    assert faults(broken, "RayCluster") == [
        ".spec.headGroupSpec.rayStartParams.num-cpus: not text", ".spec.workerGroupSpecs[0].groupName: missing",
    ]  # fmt: skip


def clusters() -> Iterator[dict[str, Any]]:
    for _, document in documents():
        spec = document.get("spec", {})
        if document["apiVersion"] == "ray.io/v1":
            yield spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def test_clusters_run_the_locked_ray_behind_a_token() -> None:
    for cluster in clusters():
        assert Version(cluster["rayVersion"]) == Version(locked("ray"))
        assert cluster["authOptions"] == {"mode": "token", "secretName": "idgbr-ray"}
        groups = cluster["workerGroupSpecs"]
        assert all(0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)
        assert any("nvidia.com/gpu" in yaml.safe_dump(group) for group in groups)


def pods() -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Name of the file, the pod's spec, and the volumes that its controller adds."""
    for name, document in documents():
        if document["kind"] in ("Deployment", "StatefulSet"):
            claims = [claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])]
            template = document["spec"]["template"]
            assert template["metadata"]["labels"] == document["spec"]["selector"]["matchLabels"]
            yield name, template["spec"], claims
    for cluster in clusters():
        for group in _groups(cluster):
            yield "cluster", group["template"]["spec"], []


def _groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_pods_are_whole_and_not_root() -> None:
    assert len(list(pods())) > 12
    for name, pod, claims in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | set(claims)
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["name"] and container["image"]
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        assert all("requests" in container["resources"] for container in pod["containers"])


def test_secrets_come_from_secrets() -> None:
    referenced = set()
    for name, pod, _ in pods():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if SECRET_NAME.search(variable["name"]):
                    assert "value" not in variable, (name, variable["name"])
                if "valueFrom" in variable:
                    referenced.add(variable["valueFrom"]["secretKeyRef"]["name"])
        referenced |= {v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v}
    referenced |= {cluster["authOptions"]["secretName"] for cluster in clusters()}
    assert of_kind("Secret") == []
    texts = "\n".join(path.read_text() for path in MANIFESTS)
    assert referenced == set(re.findall(r"kubectl create secret generic (\S+)", texts))


def test_claims_and_services_that_are_named_are_there() -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    for _, pod, _ in pods():
        for volume in pod.get("volumes", []):
            assert volume.get("persistentVolumeClaim", {"claimName": "idgbr-data"})["claimName"] in claims
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in of_kind("Deployment") + of_kind("StatefulSet")]
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind("Service")}
    assert all(spec["selector"] in labels for spec in services.values())
    texts = "\n".join(path.read_text() for path in MANIFESTS)
    for host, port in re.findall(r"(?:@|http://)(mlflow[\w-]*):(\d+)", texts):
        assert int(port) in {entry["port"] for entry in services[host]["ports"]}


@pytest.mark.parametrize("name", ["train", "refine"])
def test_the_jobs_take_their_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGBR_DATA", "/data/imagery")
    manifest = yaml.safe_load((ROOT / f"configs/kubernetes/rayjob-{name}.yaml").read_text())["spec"]
    program, script, *words = shlex.split(manifest["entrypoint"].replace("/opt/idgbr", str(ROOT)))
    assert program == "python"
    flags = runpy.run_path(script)["Flags"]
    parse_job(flags, words)  # refuses what it does not know
    assert set(yaml.safe_load(manifest["runtimeEnvYAML"])) == {"env_vars"}


def test_serve_takes_the_service_s_configuration() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(of_kind("RayService")[0]["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "serve_apps.refinement:build"
    assert config == yaml.safe_load((ROOT / "configs/serve/cluster.yaml").read_text())
    keys = Path(config["applications"][0]["args"]["access"]["keys_file"])
    for group in _groups(of_kind("RayService")[0]["spec"]["rayClusterConfig"]):
        mounts = {m["name"]: m["mountPath"] for m in group["template"]["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["keys"] == str(keys.parent)
    with pytest.raises(ValueError, match="import_paht"):
        ServeDeploySchema.model_validate(config | {"applications": [{"import_paht": "a:b"}]})


def instructions(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a Dockerfile, continuation lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(words[0], words[1].strip()) for line in joined if (words := line.split(None, 1))]


def test_the_image_is_what_it_says() -> None:
    found = instructions((ROOT / "Dockerfile").read_text())
    assert {name for name, _ in found} <= {
        "ARG", "FROM", "COPY", "RUN", "USER", "WORKDIR", "ENV", "EXPOSE", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    starts = [i for i, (name, _) in enumerate(found) if name == "FROM"]
    stages = [found[a:b] for a, b in zip(starts, [*starts[1:], len(found)], strict=True)]
    for stage in stages:
        assert stage[0][1].startswith("python:${PYTHON}-slim")
        users = [argument for name, argument in stage if name == "USER"]
        assert users and users[-1] not in ("root", "0")
        made = " ".join(argument for name, argument in stage if name == "RUN")
        assert "useradd --create-home --uid 1000 " in made and users[-1] in made
    node = stages[-1]  # the stage that `docker build` builds by default
    assert ("ARG", "ACCELERATOR=cpu") in node
    install = next(argument for name, argument in node if name == "RUN" and "--requirement" in argument)
    assert "requirements.lock" in install and "cpu)" in install and "cuda)" in install
    assert found[0] == ("ARG", "PYTHON=3.11")
    for name, argument in found:
        if name == "COPY":
            *sources, _ = [word for word in argument.split() if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)
        if name in ("ARG", "ENV"):
            assert not SECRET_NAME.search(argument)


def test_nothing_but_code_goes_into_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert kept <= {"requirements.lock", "pyproject.toml", "LICENSE", "README.md", "platform", "jobs", "benchmarks",
                    "serve_apps", "configs"}  # fmt: skip
    assert kept >= {"requirements.lock", "platform", "jobs", "configs"}


def test_a_submitted_job_leaves_data_and_environments_behind(tmp_path: Path) -> None:
    """What Ray itself packs of a working directory that has everything a used checkout has."""
    from ray._private.runtime_env.packaging import create_package

    kept = ["jobs/train.py", "configs/demo.yaml", "platform/idgbr/__init__.py", "platform/idgbr/registry/store.py",
            "tests/data/note.txt", "platform/idgbr/inference/maps.py"]  # fmt: skip
    left = [".git/HEAD", ".git/objects/ab/cd", ".venv/lib/x.py", ".venv/ray-token", ".data/synthetic/a.tif",
            "runs/a/b.pt", "maps/a.tif", "mlartifacts/1/m", "mlflow.db", "mlflow.db-wal", "idgbr.egg-info/PKG-INFO",
            "platform/idgbr/__pycache__/x.pyc", "venv/lib/x.py", "mlruns/0/meta", ".env", "data/a.tif",
            ".mypy_cache/x.json", ".pytest_cache/x", ".ruff_cache/x", "platform/idgbr.egg-info/PKG-INFO"]  # fmt: skip
    source = tmp_path / "checkout"
    for name in kept + left:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    excludes = yaml.safe_load((ROOT / "configs/runtime_env.yaml").read_text())["excludes"]
    packed = _packed(create_package, source, tmp_path / "package.zip", excludes)
    assert packed == set(kept)


def _packed(create_package: Any, source: Path, target: Path, excludes: list[str]) -> set[str]:
    from zipfile import ZipFile

    create_package(str(source), target, include_gitignore=True, excludes=excludes)
    with ZipFile(target) as archive:
        return {name.partition("/")[2] if name.startswith("checkout/") else name for name in archive.namelist()
                if not name.endswith("/")}  # fmt: skip
