//! Which servers are watched: by namespace and labels of their pod, by its owner's word, by the unit of the host. Pure.
//!
//! What is not known is watched: a pod of which nothing is known yet until it is, containers that are no pod's always.

use std::fmt;

use crate::alert::place::Pod;
use crate::enrich::cluster::Answer;

/// What the configuration says about it. The default watches everything but what opted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Pods of these namespaces only; a `*` stands for any run of characters. Empty: of all.
    pub namespaces: Vec<String>,
    /// Pods of these namespaces never.
    pub not_namespaces: Vec<String>,
    /// Pods only of whose labels all of these hold.
    pub labels: Vec<Requirement>,
    /// Of services of the host only these units. Empty: all.
    pub units: Vec<String>,
    /// Services of the host that are never watched.
    pub not_units: Vec<String>,
    /// Whether a pod's owner may opt out.
    pub opt_out: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            not_namespaces: Vec::new(),
            labels: Vec::new(),
            units: Vec::new(),
            not_units: Vec::new(),
            opt_out: true,
        }
    }
}

/// Who is asked about.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// What the cluster answers about a pod.
    Pod(&'a Answer),
    /// A service of the host, by its unit.
    Unit(&'a str),
    /// Anything else, or nobody knows.
    Other,
}

impl Wishes {
    /// Whether this is to be watched.
    #[must_use]
    pub fn want(&self, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Pod(Answer::Pod { pod, watched, .. }) => {
                (*watched || !self.opt_out)
                    && admits(&self.namespaces, &self.not_namespaces, &pod.namespace)
                    && self.labels.iter().all(|wanted| wanted.holds(pod))
            }
            Subject::Unit(unit) => admits(&self.units, &self.not_units, unit),
            Subject::Pod(_) | Subject::Other => true,
        }
    }

    /// Whether the configuration leaves anybody out.
    #[must_use]
    pub fn is_choosy(&self) -> bool {
        *self != Self { opt_out: self.opt_out, ..Self::default() }
    }

    /// Whether services of the host may be left out.
    #[must_use]
    pub fn is_about_units(&self) -> bool {
        !(self.units.is_empty() && self.not_units.is_empty())
    }

    /// Whether the names of pods are needed to obey.
    #[must_use]
    pub fn is_about_pods(&self) -> bool {
        !(self.namespaces.is_empty() && self.not_namespaces.is_empty() && self.labels.is_empty())
    }
}

fn admits(only: &[String], never: &[String], name: &str) -> bool {
    let fits = |all: &[String]| all.iter().any(|pattern| crate::control::filter::fits(pattern, name));
    (only.is_empty() || fits(only)) && !fits(never)
}

/// What must hold of a pod's labels, as Kubernetes writes it in a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's name.
    pub name: String,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It has one of these values.
    In(Vec<String>),
    /// It is not there, or has none of these values.
    NotIn(Vec<String>),
}

impl Requirement {
    /// Reads `app=shop`, `tier!=cache`, `canary`, `!canary`, `app in (shop, pay)` or `app notin (shop)`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, wanted) = if let Some(name) = text.strip_prefix('!') {
            (name.trim(), Test::Absent)
        } else if let Some((head, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let values = values.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>();
            let (name, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
            match word {
                "in" => (name.trim(), Test::In(values)),
                "notin" => (name.trim(), Test::NotIn(values)),
                _ => return None,
            }
        } else if let Some((name, value)) = text.split_once("!=") {
            (name.trim(), Test::NotIn(vec![value.trim().to_owned()]))
        } else if let Some((name, value)) = text.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            (name.trim(), Test::In(vec![value.trim().to_owned()]))
        } else {
            (text, Test::Exists)
        };
        let values = match &wanted {
            Test::In(values) | Test::NotIn(values) => values.as_slice(),
            Test::Exists | Test::Absent => &[],
        };
        let fine = is_label_name(name) && values.iter().all(|value| is_label_value(value));
        fine.then(|| Self { name: name.to_owned(), test: wanted })
    }

    fn holds(&self, pod: &Pod) -> bool {
        let value = pod.labels.iter().find(|(name, _)| **name == *self.name).map(|(_, value)| value);
        let among = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| **one == **value));
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => among(values),
            Test::NotIn(values) => !among(values),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.test {
            Test::Exists => f.write_str(name),
            Test::Absent => write!(f, "!{name}"),
            Test::In(values) => match values.as_slice() {
                [value] => write!(f, "{name}={value}"),
                values => write!(f, "{name} in ({})", values.join(", ")),
            },
            Test::NotIn(values) => match values.as_slice() {
                [value] => write!(f, "{name}!={value}"),
                values => write!(f, "{name} notin ({})", values.join(", ")),
            },
        }
    }
}

/// Whether a label may be called so: at most 63 characters, behind a DNS subdomain and a slash if there is one.
#[must_use]
pub fn is_label_name(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let fine = |prefix: &str| !prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(is_host);
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(fine)
}

/// Whether a label may have this value: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63 && text.chars().all(inside) && ends(text.chars().next()) && ends(text.chars().last())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn pod(namespace: &str, labels: &[(&str, &str)], watched: bool) -> Answer {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let pod = Pod { namespace: namespace.into(), name: "p".into(), labels, ..Pod::default() };
        Answer::Pod { pod: Arc::new(pod), container: None, watched, gone: false }
    }

    fn all(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn everything_is_watched_but_what_opted_out() {
        let wishes = Wishes::default();
        assert!(wishes.want(Subject::Pod(&pod("shop", &[], true))) && wishes.want(Subject::Other));
        assert!(!wishes.want(Subject::Pod(&pod("shop", &[], false))));
        let deaf = Wishes { opt_out: false, ..wishes.clone() };
        assert!(deaf.want(Subject::Pod(&pod("shop", &[], false))));
        assert!(!wishes.is_choosy() && !deaf.is_choosy());
    }

    #[test]
    fn namespaces_are_taken_in_and_left_out() {
        let wishes =
            Wishes { namespaces: all(&["shop-*"]), not_namespaces: all(&["shop-test"]), ..Wishes::default() };
        for (namespace, wanted) in [("shop-live", true), ("shop-test", false), ("kube-system", false)] {
            assert_eq!(wishes.want(Subject::Pod(&pod(namespace, &[], true))), wanted, "{namespace}");
        }
        for unknown in [Answer::Pending, Answer::Unknown] {
            assert!(wishes.want(Subject::Pod(&unknown)), "what is not known is watched");
        }
        assert!(wishes.want(Subject::Unit("nginx.service")), "a host's service has no namespace");
    }

    #[test]
    fn units_are_asked_of_the_host_alone() {
        let wishes =
            Wishes { units: all(&["nginx*"]), not_units: all(&["*-test.service"]), ..Wishes::default() };
        for (unit, wanted) in
            [("nginx.service", true), ("nginx-test.service", false), ("sshd.service", false)]
        {
            assert_eq!(wishes.want(Subject::Unit(unit)), wanted, "{unit}");
        }
        assert!(wishes.want(Subject::Pod(&pod("shop", &[], true))));
    }

    #[test]
    fn labels_are_asked_as_kubernetes_asks() {
        let answer = pod("shop", &[("app", "shop"), ("tier", "web")], true);
        for (text, wanted) in [
            ("app=shop", true),
            ("app==shop", true),
            ("app = pay", false),
            ("app!=pay", true),
            ("other!=x", true),
            ("tier", true),
            ("!tier", false),
            ("!canary", true),
            ("app in (pay, shop)", true),
            ("app in (pay)", false),
            ("app notin (pay, shop)", false),
            ("other notin (x)", true),
        ] {
            let wishes = Wishes { labels: vec![Requirement::parse(text).expect(text)], ..Wishes::default() };
            assert_eq!(wishes.want(Subject::Pod(&answer)), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_requirement_is_refused() {
        for text in [
            "",
            "=a",
            "a b",
            "!",
            "a=b=c",
            "a in b",
            "a in (b c)",
            "in (a)",
            "a=-b",
            "a/b/c",
            "/a",
            &"a".repeat(64),
        ] {
            assert_eq!(Requirement::parse(text), None, "{text:?}");
        }
        assert!(Requirement::parse("app.kubernetes.io/name=x").is_some());
    }

    proptest! {
        #[test]
        fn a_requirement_reads_back(text in "(!?[a-z./]{1,8}|[a-z]{1,4} ?(=|==|!=) ?[a-zA-Z0-9._-]{0,5}|[a-z] (in|notin) \\([a-z, ]{0,6}\\)|\\PC{0,10})") {
            if let Some(read) = Requirement::parse(&text) {
                prop_assert_eq!(Requirement::parse(&read.to_string()), Some(read));
            }
        }
    }
}
