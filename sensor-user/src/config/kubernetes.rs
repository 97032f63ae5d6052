//! The sections `kubernetes` and `watch`: who names pods, and which servers are watched.

use std::path::{Path, PathBuf};

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::enrich::watch::{Requirement, Wishes, is_label_name};

/// Most labels that are kept, patterns and requirements: what one pod keeps, and what is asked of each, is bounded by it.
const MAX_ITEMS: usize = 32;

/// Labels that people know workloads by.
const LABELS: [&str; 6] = [
    "app",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "version",
];

/// Who names pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Whether the API is asked.
    pub enabled: Enabled,
    /// How it is reached; none: by the service account.
    pub kubeconfig: Option<PathBuf>,
    /// The node as the cluster calls it.
    pub node: Option<String>,
    /// Which labels are told.
    pub labels: Vec<String>,
}

/// Whether to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// If there is a way.
    Auto,
    /// Yes.
    Yes,
    /// No.
    No,
}

const CHOICES: [(&str, Enabled); 3] =
    [("auto", Enabled::Auto), ("true", Enabled::Yes), ("false", Enabled::No)];

impl Word for Enabled {
    const WHAT: &'static str = "auto, true or false";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &CHOICES)
    }

    fn show(&self) -> String {
        CHOICES.iter().find(|(_, enabled)| enabled == self).map_or("auto", |(name, _)| name).to_owned()
    }
}

/// The name of a node: a DNS subdomain, as it becomes part of a question.
struct Node(String);

impl Word for Node {
    const WHAT: &'static str = "a node's name";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if text.is_empty() || text.len() > 253 || !text.chars().all(inside) {
            let wrong = Wrong::new(format!("is {}, and no node is called so", excerpt(text)));
            return Err(wrong.hint("`kubectl get nodes` lists them"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// The name of a label.
struct Label(String);

impl Word for Label {
    const WHAT: &'static str = "a label's name";
    const WHAT_MANY: &'static str = "names of labels";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if is_label_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {}, and no label is called so", excerpt(text))))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

impl Word for Requirement {
    const WHAT: &'static str = "a requirement on labels";
    const WHAT_MANY: &'static str = "requirements on labels";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Self::parse(text).ok_or_else(|| {
            let wrong = Wrong::new(format!("has {}, which asks nothing of a label", excerpt(text)));
            wrong.hint("app=shop, tier!=cache, canary, \"!canary\", \"app in (shop, pay)\"")
        })
    }

    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

/// A name in which a `*` stands for any run of characters.
struct Pattern(String);

impl Word for Pattern {
    const WHAT: &'static str = "a name, with * for any run of characters";
    const WHAT_MANY: &'static str = "names, with * for any run of characters";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || text.len() > 253 || text.chars().any(char::is_whitespace) {
            return Err(Wrong::new(format!("has {}; it must be {}", excerpt(text), Self::WHAT)));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

impl Kubernetes {
    pub(super) fn read(s: &mut Section<'_, '_>, base: &Path) -> Self {
        let doc = "Whether the Kubernetes API is asked for the names, labels and owners of this node's pods: auto (if \
                   `kubeconfig` is set, or in a pod with a service account's token), true or false. It takes get, list \
                   and watch of pods.";
        let enabled = s.word("enabled", Enabled::Auto, doc);
        let doc = "How the API is reached from outside a pod; its plugins are not run. Left out: the service account.";
        let kubeconfig = s.optional::<PathBuf>("kubeconfig", doc).map(|path| base.join(path));
        let doc = "This node as the cluster calls it. Left out: the environment's NODE_NAME, else `node` above, else the \
                   host's name.";
        let node = s.optional::<Node>("node", doc).map(|node| node.0);
        let doc = "Labels of pods that are told in alerts and that sinks can pick by.";
        let shipped = LABELS.map(|name| Label(name.to_owned())).into();
        let labels = bounded(s, "labels", shipped, doc);
        Self { enabled, kubeconfig, node, labels: labels.into_iter().map(|label| label.0).collect() }
    }
}

/// Reads `watch`.
pub(super) fn read_watch(s: &mut Section<'_, '_>) -> Wishes {
    let patterns = |s: &mut Section<'_, '_>, key: &str, doc: &str| -> Vec<String> {
        bounded::<Pattern>(s, key, Vec::new(), doc).into_iter().map(|pattern| pattern.0).collect()
    };
    let doc = "Pods of these namespaces only. Empty: of all.";
    let namespaces = patterns(s, "namespaces", doc);
    let not_namespaces = patterns(s, "not_namespaces", "Pods of these namespaces never.");
    let doc = "Pods only of whose labels all of these hold: app=shop, tier!=cache, canary, \"!canary\", \"app in (shop, pay)\".";
    let labels = bounded::<Requirement>(s, "labels", Vec::new(), doc);
    let doc = "Of the host's own services only these units, such as nginx.service. Empty: all.";
    let units = patterns(s, "units", doc);
    let not_units = patterns(s, "not_units", "Units of the host that are never watched.");
    let doc = "Whether a pod with the annotation tokenscope.dev/watch: \"false\" is left out. Who may annotate a pod can hide \
               it, so turn it off where tenants are not trusted.";
    let opt_out = s.word("opt_out", true, doc);
    Wishes { namespaces, not_namespaces, labels, units, not_units, opt_out }
}

fn bounded<T: Word>(s: &mut Section<'_, '_>, key: &str, shipped: Vec<T>, doc: &str) -> Vec<T> {
    let items = s.words(key, shipped, doc);
    if items.len() > MAX_ITEMS {
        let problem = Problem::error(s.span_of(key), format!("`{key}` has more than {MAX_ITEMS} items"));
        s.report(problem);
    }
    items
}

/// Wishes that nobody can grant.
pub(super) fn check(s: &mut Section<'_, '_>, kubernetes: &Kubernetes, wishes: &Wishes) {
    if kubernetes.enabled == Enabled::No && wishes.is_about_pods() {
        let message = "`watch` asks for namespaces or labels of pods, and `kubernetes.enabled` is false: all are watched";
        s.report(Problem::warning(s.span_of("watch"), message));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment, Report, Secrets, parse};

    fn read(text: &str) -> Result<(Config, usize), Report> {
        let loaded = parse("test", text, Path::new("/etc"), &Environment::default(), &[], Secrets::Needed)?;
        let warnings = loaded.warnings.lines().count();
        Ok((loaded.config, warnings))
    }

    #[test]
    fn everything_is_watched_and_named_by_default() {
        let (config, _) = read("").unwrap();
        assert_eq!((config.watch, config.kubernetes.enabled), (Wishes::default(), Enabled::Auto));
        assert_eq!(config.kubernetes.labels, LABELS);
    }

    #[test]
    fn every_key_is_read() {
        let text = "kubernetes: {enabled: true, kubeconfig: k, node: node-1.example, labels: [team]}\n\
                    watch: {namespaces: [\"shop-*\"], not_namespaces: [shop-x], labels: [app=a, \"!b\"], units: [a.service], \
                    not_units: [b.service], opt_out: false}\n";
        let (config, _) = read(text).unwrap();
        let wanted = Kubernetes {
            enabled: Enabled::Yes,
            kubeconfig: Some("/etc/k".into()),
            node: Some("node-1.example".into()),
            labels: vec!["team".into()],
        };
        assert_eq!(config.kubernetes, wanted);
        let labels: Vec<String> = config.watch.labels.iter().map(ToString::to_string).collect();
        assert_eq!((labels, config.watch.opt_out), (vec!["app=a".to_owned(), "!b".to_owned()], false));
        assert_eq!(config.watch.namespaces, ["shop-*"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let many = format!("watch: {{namespaces: [{}]}}", vec!["a"; 33].join(","));
        for text in [
            "kubernetes: {enabled: maybe}",
            "kubernetes: {node: \"Node 1\"}",
            "kubernetes: {labels: [\"a b\"]}",
            "watch: {labels: [\"a b\"]}",
            "watch: {namespaces: [\"\"]}",
            &many,
        ] {
            assert_eq!(read(text).err().map(|report| report.errors()), Some(1), "{text}");
        }
    }

    #[test]
    fn wishes_that_nobody_can_grant_are_told_of() {
        assert!(read("kubernetes: {enabled: false}\nwatch: {namespaces: [shop]}").unwrap().1 > 0);
        assert_eq!(read("kubernetes: {enabled: false}\nwatch: {units: [a.service]}").unwrap().1, 0);
    }
}
