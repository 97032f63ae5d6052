//! Pods as API servers of 1.29 to 1.36 tell of them, written after the reference of each: what a version added is there from
//! it on, and `managedFields` are as long-winded as in life.

use serde_json::{Value, json};

/// The UID of [`orders`].
pub(crate) const ORDERS: &str = "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";

/// A page of pods.
pub(crate) fn list(pods: &[Value], version: &str, more: Option<&str>) -> Value {
    let mut page = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": pods});
    if let Some(more) = more {
        page["metadata"]["continue"] = more.into();
        page["metadata"]["remainingItemCount"] = 1.into();
    }
    page
}

/// The least that a pod has: its UID and name are the same.
pub(crate) fn named(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "shop", "uid": name,
        "resourceVersion": "101"}, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}})
}

/// A pod of a Deployment, with a sidecar.
pub(crate) fn orders(minor: u32) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": "orders-7f9c4d5b8-x2x4z", "generateName": "orders-7f9c4d5b8-", "namespace": "shop", "uid": ORDERS,
            "resourceVersion": "4711", "creationTimestamp": "2026-11-21T18:04:05Z",
            "labels": {"app": "orders", "pod-template-hash": "7f9c4d5b8", "secret-project": "x"},
            "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-20T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-7f9c4d5b8",
                "uid": "9b1a", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-21T18:04:05Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}}],
        },
        "spec": {
            "nodeName": "node-1", "serviceAccountName": "default", "restartPolicy": "Always",
            "containers": [{"name": "main", "image": "registry.example/orders:1.2",
                "env": [{"name": "PASSWORD", "value": "hush"}], "resources": {}}],
            "initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}],
            "qosClass": "BestEffort", "startTime": "2026-11-21T18:04:05Z",
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": "2026-11-21T18:04:09Z"}],
            "containerStatuses": [{"name": "main", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example/orders:1.2",
                "imageID": format!("registry.example/orders@sha256:{}", "ab".repeat(32)),
                "containerID": format!("containerd://{}", "3f".repeat(32)),
                "lastState": {}, "state": {"running": {"startedAt": "2026-11-21T18:04:08Z"}}}],
            "initContainerStatuses": [{"name": "proxy", "ready": true, "restartCount": 0, "image": "proxy:1",
                "imageID": "", "containerID": format!("containerd://{}", "4e".repeat(32)), "lastState": {}, "state": {}}],
        },
    });
    grow(&mut pod, minor);
    pod
}

/// A static pod's mirror.
pub(crate) fn mirror(minor: u32) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": "etcd-node-1", "namespace": "kube-system", "uid": "6b1d0a52-4a53-4d31-a0f3-0de0a4a2f9f1",
            "resourceVersion": "12", "creationTimestamp": "2026-11-01T00:00:00Z",
            "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef",
                "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef",
                "kubernetes.io/config.source": "file"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "1", "controller": true}],
        },
        "spec": {"nodeName": "node-1", "hostNetwork": true, "containers": [{"name": "etcd", "image": "etcd:3"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "etcd", "image": "etcd:3", "imageID": "etcd@x",
            "containerID": format!("cri-o://{}", "5d".repeat(32)), "ready": true, "restartCount": 0}]},
    });
    grow(&mut pod, minor);
    pod
}

/// What versions have added since 1.29.
fn grow(pod: &mut Value, minor: u32) {
    let added: [(u32, &str, &str, Value); 9] = [
        (29, "/status", "hostIPs", json!([{"ip": "10.0.0.1"}])),
        (30, "/spec", "securityContext", json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
        (
            31,
            "/status/containerStatuses/0",
            "volumeMounts",
            json!([{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Disabled"}]),
        ),
        (
            31,
            "/status/containerStatuses/0",
            "user",
            json!({"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}}),
        ),
        (32, "/spec", "resources", json!({"requests": {"cpu": "1"}})),
        (33, "/status/containerStatuses/0", "allocatedResources", json!({"cpu": "1"})),
        (34, "/status", "observedGeneration", json!(3)),
        (35, "/metadata", "generation", json!(3)),
        (36, "/spec", "workloadRef", json!({"name": "w", "podGroup": "g"})),
    ];
    for (since, place, name, value) in added {
        if minor >= since {
            pod.pointer_mut(place).unwrap()[name] = value;
        }
    }
}
