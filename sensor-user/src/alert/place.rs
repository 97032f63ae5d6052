//! The workload at the server's end of an exchange, as far as the host and the cluster tell.
//!
//! No rule asks for it: the runtime fills it in when an alert is told, and again whenever news of the alert are.

use std::sync::Arc;

/// What runs behind a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What people call it: `shop/orders-7f9c`, a unit, a process; empty if nothing is known.
    pub name: String,
    /// The container.
    pub container_id: Option<String>,
    /// The pod.
    pub pod_uid: Option<String>,
    /// The process.
    pub process: Option<Process>,
    /// How sure the rest is.
    pub identity: Identity,
    /// What the cluster says of the pod.
    pub pod: Option<Arc<Pod>>,
    /// What the cluster says of the container.
    pub container: Option<Container>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// How far it is known who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Everything that there is: a pod by its name, or a container that belongs to none.
    Known,
    /// A pod of which the cluster has not told yet: later news of the alert may have its name.
    Pending,
    /// A pod that was deleted; its name is told if it was known.
    Gone,
    /// A process of the host.
    Host,
    /// Nobody knows, and nobody will tell.
    #[default]
    Unknown,
}

impl Identity {
    /// Every one, in the order of [`Identity::as_str`]'s figures.
    pub const ALL: [Self; 5] = [Self::Known, Self::Pending, Self::Gone, Self::Host, Self::Unknown];

    /// Its word in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Pending => "pending",
            Self::Gone => "gone",
            Self::Host => "host",
            Self::Unknown => "unknown",
        }
    }
}

/// What is kept of a pod. Texts are printable and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its UID.
    pub uid: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The node that it runs on.
    pub node: Option<Box<str>>,
    /// What made it.
    pub owner: Option<Owner>,
    /// Those of its labels that are kept, in the order of their names.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Whether it shares the node's network.
    pub host_network: bool,
}

impl Pod {
    /// `shop/orders-7f9c`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What made a pod: the controller that people know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, `Node`, ...
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name within the pod.
    pub name: Box<str>,
    /// The image as it was asked for: `registry.example/orders:1.2`.
    pub image: Option<Box<str>>,
    /// The image as the runtime has it: `registry.example/orders@sha256:...`.
    pub image_id: Option<Box<str>>,
}

impl Container {
    /// The image's name and tag. A port is no tag, and a digest is neither.
    #[must_use]
    pub fn image(&self) -> Option<(&str, Option<&str>)> {
        let image = self.image.as_deref()?;
        let image = image.split_once('@').map_or(image, |(name, _)| name);
        Some(match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (image, None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_name_and_a_tag() {
        let of = |image: &str| {
            let container = Container { name: "c".into(), image: Some(image.into()), image_id: None };
            let (name, tag) = container.image().unwrap();
            (name.to_owned(), tag.map(str::to_owned))
        };
        let case = |image, name: &str, tag: Option<&str>| {
            assert_eq!(of(image), (name.to_owned(), tag.map(str::to_owned)), "{image}");
        };
        case("orders", "orders", None);
        case("orders:1.2", "orders", Some("1.2"));
        case("localhost:5000/orders", "localhost:5000/orders", None);
        case("localhost:5000/orders:1@sha256:ab", "localhost:5000/orders", Some("1"));
        case("orders@sha256:ab", "orders", None);
    }
}
