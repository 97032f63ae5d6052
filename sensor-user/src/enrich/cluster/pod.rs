//! A pod as the API tells of it, and what is kept of it.
//!
//! Only what is needed is read: of the shapes of 1.29 to 1.36 nothing else matters, and an answer that lacks a field or has
//! more of them reads all the same.
//!
//! **Owners.** People know a Deployment and not its `ReplicaSet`, a `CronJob` and not its Job. Their names are not in the
//! pod, but follow from what is: a Deployment's controller calls its `ReplicaSet` by the Deployment's name and the pod
//! template's hash, which is also the pod's label `pod-template-hash`; a `CronJob`'s calls its Jobs by the `CronJob`'s name
//! and the minute for which they run, as a number since the epoch. A Job whose name somebody else ended in eight to
//! ten digits is taken for a `CronJob`'s.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::alert::place::{Container, Owner, Pod};
use crate::telemetry::printable;

/// Longest name: a DNS subdomain (RFC 1123).
const MAX_NAME: usize = 253;
/// Longest reference to an image that is kept.
const MAX_IMAGE: usize = 512;
/// Most labels that are kept of a pod.
pub const MAX_LABELS: usize = 32;
/// Most containers of a pod that are known; most have one to five.
const MAX_CONTAINERS: usize = 64;

/// By which a pod's owner says that it is not to be watched.
pub const OPT_OUT: &str = "tokenscope.dev/watch";
/// By which the kubelet ties a pod in the API to the static pod on the node: the hash of its file.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The hash that a Deployment's `ReplicaSet` ends in.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What is kept of a pod and found by it.
#[derive(Clone, Debug)]
pub struct Described {
    /// What is told of it.
    pub pod: Arc<Pod>,
    /// Its containers by id.
    pub containers: Vec<(Box<str>, Container)>,
    /// The hash of the file that it is the mirror of.
    pub mirror_of: Option<Box<str>>,
    /// Whether its owner wants it to be watched.
    pub watched: bool,
}

impl Described {
    /// Names under which it can be found besides its UID.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(|(id, _)| &**id).chain(self.mirror_of.as_deref())
    }

    /// The container with this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|(own, _)| &**own == id).map(|(_, container)| container)
    }
}

/// A pod on the wire.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodObject {
    #[serde(default, deserialize_with = "lean")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    name: String,
    image: Option<String>,
    #[serde(rename = "imageID")]
    image_id: Option<String>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// The part of the metadata that is read: the rest, above all `managedFields`, is most of it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    controller: Option<bool>,
}

fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let meta = Meta::deserialize(deserializer)?;
    let annotations = meta.annotations.map(|mut all| {
        all.retain(|name, _| name == OPT_OUT || name == MIRROR);
        all
    });
    let reference = |of: Reference| k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
        kind: of.kind,
        name: of.name,
        controller: of.controller,
        ..Default::default()
    };
    Ok(ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        labels: meta.labels,
        annotations,
        owner_references: meta.owner_references.map(|all| all.into_iter().map(reference).collect()),
        ..ObjectMeta::default()
    })
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl PodObject {
    /// Its UID, if it has one.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref().filter(|uid| !uid.is_empty() && uid.len() <= MAX_NAME)
    }

    /// What is kept of it; none if it does not say who it is. Of its labels those are kept that `keeps` wants.
    #[must_use]
    pub fn describe(&self, keeps: impl Fn(&str) -> bool) -> Option<Described> {
        let meta = &self.metadata;
        let name =
            |text: Option<&String>| text.filter(|text| !text.is_empty()).map(|text| brief(text, MAX_NAME));
        let spec = self.spec.as_ref();
        let labels = meta.labels.iter().flatten();
        let kept = labels.filter(|(name, value)| keeps(name) && value.len() <= MAX_NAME).take(MAX_LABELS);
        let annotation = |name| meta.annotations.as_ref().and_then(|all| all.get(name));
        let pod = Pod {
            uid: self.uid()?.into(),
            namespace: name(meta.namespace.as_ref())?,
            name: name(meta.name.as_ref())?,
            node: name(spec.and_then(|spec| spec.node_name.as_ref())),
            owner: self.owner(),
            labels: kept.map(|(name, value)| (brief(name, MAX_NAME), brief(value, MAX_NAME))).collect(),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        };
        Some(Described {
            pod: Arc::new(pod),
            containers: self.containers(),
            mirror_of: annotation(MIRROR)
                .filter(|hash| hash.len() <= MAX_NAME)
                .map(|hash| hash.as_str().into()),
            watched: annotation(OPT_OUT).is_none_or(|word| !word.trim().eq_ignore_ascii_case("false")),
        })
    }

    fn containers(&self) -> Vec<(Box<str>, Container)> {
        let Some(status) = &self.status else { return Vec::new() };
        let all = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let known = all.into_iter().flatten().flatten().filter_map(|of| {
            // `containerd://3f2a...`
            let id = of.container_id.as_deref()?;
            let id = id.split_once("://").map_or(id, |(_, id)| id);
            let text = |text: Option<&String>| {
                text.filter(|text| !text.is_empty()).map(|text| brief(text, MAX_IMAGE))
            };
            let container = Container {
                name: brief(&of.name, MAX_NAME),
                image: text(of.image.as_ref()),
                image_id: text(of.image_id.as_ref()),
            };
            (!id.is_empty() && id.len() <= MAX_NAME).then(|| (id.into(), container))
        });
        known.take(MAX_CONTAINERS).collect()
    }

    /// The controller that people know.
    fn owner(&self) -> Option<Owner> {
        let references = self.metadata.owner_references.as_ref()?;
        let owner =
            references.iter().find(|of| of.controller == Some(true)).or_else(|| references.first())?;
        let hash = self.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
        let (kind, name) = match owner.kind.as_str() {
            "ReplicaSet" => {
                match hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')) {
                    Some(name) if !name.is_empty() => ("Deployment", name),
                    _ => ("ReplicaSet", owner.name.as_str()),
                }
            }
            "Job" => match owner
                .name
                .rsplit_once('-')
                .filter(|(name, minute)| !name.is_empty() && is_minute(minute))
            {
                Some((name, _)) => ("CronJob", name),
                None => ("Job", owner.name.as_str()),
            },
            kind => (kind, owner.name.as_str()),
        };
        Some(Owner { kind: brief(kind, MAX_NAME), name: brief(name, MAX_NAME) })
    }
}

/// Minutes since the epoch have had eight digits since 1989, and will until 2160.
fn is_minute(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Printable, and its first so many bytes at most.
fn brief(text: &str, most: usize) -> Box<str> {
    let text = printable(text.get(..text.floor_char_boundary(most)).unwrap_or(text));
    text.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(object: Value) -> Described {
        serde_json::from_value::<PodObject>(object).unwrap().describe(|_| true).unwrap()
    }

    fn owned(kind: &str, name: &str, labels: Value) -> Option<(String, String)> {
        let meta = json!({"name": "p", "namespace": "n", "uid": "u", "labels": labels,
            "ownerReferences": [{"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": true}]});
        let owner = pod(json!({"metadata": meta})).pod.owner.clone()?;
        Some((owner.kind.into(), owner.name.into()))
    }

    #[test]
    fn owners_are_those_that_people_know() {
        let hash = json!({"pod-template-hash": "7f9c4d5b8"});
        let case = |kind, name, labels: &Value, wanted: (&str, &str)| {
            assert_eq!(owned(kind, name, labels.clone()), Some((wanted.0.into(), wanted.1.into())), "{name}");
        };
        case("ReplicaSet", "orders-api-7f9c4d5b8", &hash, ("Deployment", "orders-api"));
        case("ReplicaSet", "orders-api-7f9c4d5b8", &json!({}), ("ReplicaSet", "orders-api-7f9c4d5b8"));
        case("ReplicaSet", "-7f9c4d5b8", &hash, ("ReplicaSet", "-7f9c4d5b8"));
        case("ReplicaSet", "orders", &json!({"pod-template-hash": ""}), ("ReplicaSet", "orders"));
        case("Job", "report-29384756", &json!(null), ("CronJob", "report"));
        case("Job", "migrate-2024", &json!(null), ("Job", "migrate-2024"));
        case("Job", "-29384756", &json!(null), ("Job", "-29384756"));
        case("StatefulSet", "db", &json!(null), ("StatefulSet", "db"));
        case("DaemonSet", "proxy", &json!(null), ("DaemonSet", "proxy"));
        case("Node", "node-1", &json!(null), ("Node", "node-1"));
    }

    #[test]
    fn who_does_not_say_who_it_is_is_nobody() {
        for object in [
            json!({}),
            json!({"metadata": {"name": "p", "namespace": "n"}}),
            json!({"metadata": {"name": "p", "uid": "u"}}),
            json!({"metadata": {"name": "", "namespace": "n", "uid": "u"}}),
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u".repeat(300)}}),
        ] {
            let object: PodObject = serde_json::from_value(object).unwrap();
            assert!(object.describe(|_| true).is_none(), "{object:?}");
        }
    }

    #[test]
    fn what_is_left_out_or_null_is_no_error() {
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": null, "annotations": null,
            "ownerReferences": null, "creationTimestamp": 7}, "spec": null, "status": {"containerStatuses": null}});
        let described = pod(object);
        assert!(described.watched && described.containers.is_empty() && described.pod.owner.is_none());
    }

    #[test]
    fn texts_are_bounded_and_printable() {
        let many: BTreeMap<String, String> = (0..1000).map(|n| (format!("l{n:04}"), "v".repeat(n))).collect();
        let statuses: Vec<Value> =
            (0..1000).map(|n| json!({"name": "c".repeat(1000), "containerID": format!("x://{n}")})).collect();
        let described = pod(
            json!({"metadata": {"name": "p\u{1b}[2J".repeat(100), "namespace": "n", "uid": "u", "labels": many},
            "status": {"containerStatuses": statuses}}),
        );
        assert!(described.pod.name.len() <= 3 * MAX_NAME && !described.pod.name.contains('\u{1b}'));
        assert_eq!((described.pod.labels.len(), described.containers.len()), (MAX_LABELS, MAX_CONTAINERS));
        assert!(described.containers.iter().all(|(_, container)| container.name.len() == MAX_NAME));
    }

    #[test]
    fn only_a_plain_no_keeps_a_pod_from_being_watched() {
        for (word, watched) in
            [("false", false), (" False ", false), ("true", true), ("", true), ("no", true)]
        {
            let meta = json!({"name": "p", "namespace": "n", "uid": "u", "annotations": {OPT_OUT: word}});
            assert_eq!(pod(json!({"metadata": meta})).watched, watched, "{word:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_object_is_read_or_refused(text in "\\PC{0,200}", name in "\\PC{0,20}") {
            let _ = serde_json::from_str::<PodObject>(&text);
            let meta = json!({"name": name, "namespace": text, "uid": name, "labels": {name.clone(): text.clone()},
                "ownerReferences": [{"kind": "Job", "name": text}, {"kind": "ReplicaSet", "name": name}]});
            let status = json!({"containerStatuses": [{"name": text, "containerID": name, "image": text}]});
            let object = json!({"metadata": meta, "status": status});
            let _ = serde_json::from_value::<PodObject>(object).unwrap().describe(|_| true);
        }
    }
}
