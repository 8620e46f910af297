"""What the documented API of KubeRay (ray.io/v1) requires and knows, as far as the manifests here use it."""

from __future__ import annotations

from typing import Any

CLUSTER = "RayClusterSpec"
# Field: whether it is required, and the type of what is below it. Fields that no manifest uses are left out on
# purpose: one that is added here was looked up first.
FIELDS: dict[str, dict[str, tuple[bool, str]]] = {
    "RayCluster": {"apiVersion": (True, ""), "kind": (True, ""), "metadata": (True, "Meta"), "spec": (True, CLUSTER)},
    "RayJob": {"apiVersion": (True, ""), "kind": (True, ""), "metadata": (True, "Meta"), "spec": (True, "RayJobSpec")},
    "RayService": {
        "apiVersion": (True, ""), "kind": (True, ""), "metadata": (True, "Meta"), "spec": (True, "RayServiceSpec"),
    },
    "Meta": {"name": (True, "")},
    CLUSTER: {
        "rayVersion": (False, ""),
        "authOptions": (False, "AuthOptions"),
        "enableInTreeAutoscaling": (False, ""),
        "autoscalerOptions": (False, "AutoscalerOptions"),
        "headGroupSpec": (True, "HeadGroupSpec"),
        "workerGroupSpecs": (False, "[WorkerGroupSpec]"),
    },
    "AuthOptions": {"mode": (False, ""), "secretName": (False, "")},
    "AutoscalerOptions": {"version": (False, ""), "idleTimeoutSeconds": (False, ""), "upscalingMode": (False, "")},
    "HeadGroupSpec": {"rayStartParams": (True, "{str}"), "template": (True, "")},
    "WorkerGroupSpec": {
        "groupName": (True, ""),
        "replicas": (False, ""),
        "minReplicas": (True, ""),
        "maxReplicas": (True, ""),
        "rayStartParams": (True, "{str}"),
        "template": (True, ""),
    },
    "RayJobSpec": {
        "entrypoint": (True, ""),  # optional to the schema, as for InteractiveMode; here every job has one
        "submissionMode": (False, ""),
        "backoffLimit": (False, ""),
        "shutdownAfterJobFinishes": (False, ""),
        "ttlSecondsAfterFinished": (False, ""),
        "runtimeEnvYAML": (False, ""),
        "rayClusterSpec": (True, CLUSTER),
    },
    "RayServiceSpec": {"serveConfigV2": (True, ""), "rayClusterConfig": (True, CLUSTER)},
}  # fmt: skip


def faults(value: Any, kind: str, where: str = "") -> list[str]:
    """What a manifest lacks, and what it has that nobody knows; empty where it is sound."""
    if kind == "{str}":
        return [f"{where}.{k}: not text" for k, v in value.items() if not isinstance(v, str)]
    if kind.startswith("["):
        parts = [faults(item, kind[1:-1], f"{where}[{i}]") for i, item in enumerate(value)]
        return [fault for part in parts for fault in part]
    fields = FIELDS[kind]
    found = [f"{where}.{name}: missing" for name, (required, _) in fields.items() if required and name not in value]
    found += [f"{where}.{name}: unknown" for name in value if name not in fields]
    for name, below in value.items():
        if fields.get(name, (False, ""))[1]:
            found += faults(below, fields[name][1], f"{where}.{name}")
    return found
