//! The configuration: raw as typed, checked as used, and every error at once.
//!
//! A file becomes a tree of nodes that know their places ([`yaml`]); one pass over it asks for every key there is
//! ([`section`]) and gives a [`Config`] of which every stage may use its part as it is. A flag beats the environment
//! ([`env`]), which beats the file, which beats the default. Secrets are named in the file and never written there.

pub mod control;
pub mod docs;
pub mod env;
pub mod kubernetes;
pub mod near;
pub mod outputs;
pub mod problem;
pub mod revocation;
pub mod rules;
pub mod section;
pub mod show;
pub mod sinks;
pub mod tokens;
pub mod traffic;
mod unreadable;
pub mod user;
pub mod word;
pub mod yaml;

use std::io::Read as _;
use std::path::Path;

use crate::detect::About;
use crate::token::settings::TokenSettings;

pub use env::Environment;
pub use kubernetes::Kubernetes;
pub use outputs::{Format, Metrics, Spool, State, Stdout, Store, Sync};
pub use problem::{Level, Problem, Report, Source, Span};
pub use rules::{Alerts, RuleSettings};
pub use tokens::{Mask, Privacy, SecretRef};
pub use traffic::{Capture, Country, Flows, Geo, Http, ListFiles, Lists, PrincipalSource, RouteMatch, Zone};
pub use user::RulesDir;
pub use word::Cgroup;

use section::{Reader, Section};

/// Largest configuration file, in bytes: deny lists of 50,000 accounts fit.
const MAX_FILE: u64 = 1 << 20;

/// The whole configuration, checked. It holds the key of fingerprints, so it is never printed: [`Loaded::entries`] is.
#[derive(Clone)]
pub struct Config {
    /// What is captured.
    pub capture: Capture,
    /// Limits on connections.
    pub flows: Flows,
    /// How HTTP is read.
    pub http: Http,
    /// Tokens and their issuers.
    pub tokens: TokenSettings,
    /// What routes are for.
    pub routes: Vec<RouteMatch>,
    /// Names and addresses.
    pub lists: Lists,
    /// Places of addresses.
    pub geo: Geo,
    /// Where working hours are measured.
    pub time_zone: Zone,
    /// Every rule of the catalogue, in its order.
    pub rules: Vec<RuleSettings>,
    /// Where the user's own rules are.
    pub rules_dir: RulesDir,
    /// What becomes of findings.
    pub alerts: Alerts,
    /// How much of people is shown.
    pub privacy: Privacy,
    /// The key of pseudonyms: one of its own, or that of fingerprints.
    pub pseudonym_key: Option<zeroize::Zeroizing<Vec<u8>>>,
    /// Standard output.
    pub stdout: Stdout,
    /// Every other sink.
    pub sinks: Vec<crate::sink::Settings>,
    /// Metrics.
    pub metrics: Metrics,
    /// What survives a restart.
    pub state: State,
    /// This node's name in events; none means the host's.
    pub node: Option<String>,
    /// What every event of this node is labelled with, `name=value`.
    pub labels: Vec<String>,
    /// Who names pods.
    pub kubernetes: Kubernetes,
    /// Which servers are watched.
    pub watch: crate::enrich::watch::Wishes,
    /// How alerts wait for sinks.
    pub spool: Spool,
    /// What can be searched later.
    pub store: Store,
    /// Where the running sensor can be asked.
    pub control: crate::control::Settings,
}

impl Config {
    /// The sections in which another configuration differs and that a running sensor cannot change.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let privacy = self.privacy != other.privacy || self.pseudonym_key != other.pseudonym_key;
        [
            ("capture", self.capture != other.capture),
            ("flows", self.flows != other.flows),
            ("http", self.http != other.http),
            ("alerts", self.alerts != other.alerts),
            ("privacy", privacy),
            ("metrics", self.metrics != other.metrics),
            ("state", self.state != other.state),
            ("node", self.node != other.node),
            ("labels", self.labels != other.labels),
            ("spool", self.spool != other.spool),
            ("store", self.store != other.store),
            ("control", self.control != other.control),
        ]
        .into_iter()
        .filter_map(|(section, differs)| differs.then_some(section))
        .collect()
    }
}

/// A configuration and what there is to say about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only.
    pub warnings: Report,
    /// Every key with its effective value.
    pub entries: Vec<show::Entry>,
}

/// What is done about secrets that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// An error: the sensor is to run.
    Needed,
    /// A warning: the file is only looked at, perhaps on another host.
    Optional,
}

/// Reads a file; none means that everything has its default unless the environment says otherwise.
///
/// # Errors
/// With every problem, if there is at least one error.
pub fn load(
    path: Option<&Path>,
    environment: &Environment,
    cards: &[&'static About],
    secrets: Secrets,
) -> Result<Loaded, Report> {
    let Some(path) = path else { return parse("defaults", "", Path::new(""), environment, cards, secrets) };
    let name = path.display().to_string();
    let text = read_file(path).map_err(|why| Report::whole(&name, why))?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&name, &text, base, environment, cards, secrets)
}

fn read_file(path: &Path) -> Result<String, String> {
    let tell =
        |error: std::io::Error| format!("cannot read the configuration: {}", unreadable::why(path, &error));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(tell)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(tell)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("the configuration is larger than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        format!("the configuration is not UTF-8: line {line} has a byte that is no text")
    })
}

/// Reads a text. Relative paths in it start at `base`.
///
/// # Errors
/// With every problem, if there is at least one error.
pub fn parse(
    name: &str,
    text: &str,
    base: &Path,
    environment: &Environment,
    cards: &[&'static About],
    secrets: Secrets,
) -> Result<Loaded, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sources = vec![Source { name: name.to_owned(), text: text.to_owned() }];
    let variables = environment.variables(&mut sources);
    let mut problems = Vec::new();
    let root = yaml::parse(text, 0, &mut problems);
    let mut reader = Reader::new(&variables);
    let (config, entries) = reader.document(root.as_ref(), |s| {
        let resolver = tokens::Resolver { environment, secrets, base };
        let config = Config::read(s, base, cards, resolver);
        resolve_key(s, config, environment, secrets)
    });
    problems.append(&mut reader.problems);
    problems.sort_by_key(|problem| problem.span);
    let report = Report { sources, problems };
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded { config, warnings: report, entries })
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

fn resolve_key(
    s: &mut Section<'_, '_>,
    mut config: Config,
    environment: &Environment,
    secrets: Secrets,
) -> Config {
    let mut resolve = |key: &str, secret: &Option<SecretRef>| match secret.as_ref()?.resolve(environment) {
        Ok(secret) => Some(secret),
        Err(why) => {
            let span = s.span_of("privacy");
            let message = format!("`privacy.{key}`: {why}");
            s.report(match secrets {
                Secrets::Needed => Problem::error(span, message),
                Secrets::Optional => Problem::warning(span, message),
            });
            None
        }
    };
    config.tokens.fingerprint_key = resolve("fingerprint_key", &config.privacy.fingerprint_key);
    let own = resolve("pseudonym_key", &config.privacy.pseudonym_key);
    config.pseudonym_key = match config.privacy.pseudonym_key {
        Some(_) => own,
        None => config.tokens.fingerprint_key.clone(),
    };
    config
}

impl Config {
    /// Asks for every key there is, in the order in which it is shown.
    fn read(
        s: &mut Section<'_, '_>,
        base: &Path,
        cards: &[&'static About],
        resolver: tokens::Resolver<'_>,
    ) -> Self {
        let capture = s.section("capture", "What is captured.", Capture::read);
        let flows = s.section("flows", "Limits on what is remembered of connections.", Flows::read);
        let http = s.section("http", "How HTTP is read.", Http::read);
        let mut tokens =
            s.section("tokens", "Where tokens are looked for, and how many are remembered.", tokens::read);
        let doc = "The issuers of the tokens that your services accept. Without one, only what needs no key is detected.";
        tokens.issuers =
            s.items("issuers", doc, tokens::ISSUER_EXAMPLE, |s| tokens::read_issuer(s, base, resolver));
        tokens::refuse_twins(s, &tokens.issuers);
        let doc = "Who is asked whether a token was revoked, besides `lists.revoked_ids`. Nobody unless set here or at an \
                   issuer.";
        tokens.revocation = s.section("revocation", doc, |s| revocation::read(s, &tokens.issuers, resolver));
        let doc = "What routes are for, where it cannot be guessed. Login, logout, token and health routes of usual \
                   names are known without this.";
        let routes = s.items("routes", doc, RouteMatch::EXAMPLE, RouteMatch::read);
        let lists = s.section("lists", "Names and addresses that the sensor cannot know by itself.", |s| {
            Lists::read(s, base)
        });
        let doc = "Databases of places. Without them, what is about places keeps silent.";
        let geo = s.section("geo", doc, |s| Geo::read(s, base));
        let doc = "Where working hours are measured: system, or a name such as Europe/Berlin. Replay takes UTC for system.";
        let time_zone = s.word("time_zone", Zone::System, doc);
        let doc = "Every rule by its id; docs/rules.md says what each sees.";
        let rules = s.section("rules", doc, |s| rules::read(s, cards));
        let rules_dir = RulesDir::read(s, base);
        let alerts = s.section("alerts", "What becomes of findings.", |s| Alerts::read(s, cards));
        let privacy = s.section("privacy", "How much of people is shown.", Privacy::read);
        let doc = "Where alerts go besides standard output, which is always there unless turned off here.";
        let items = s.items("sinks", doc, sinks::EXAMPLE, |s| sinks::read(s, resolver));
        let (stdout, sinks) = sinks::sort(s, items);
        let metrics = s.section("metrics", "Where the sensor tells about itself.", Metrics::read);
        let doc = "This node's name in events. Left out: the host's name.";
        let node = s.optional::<sinks::NodeName>("node", doc).map(|name| name.0);
        let doc = "Labels of every event of this node, name=value: sinks can pick by them.";
        let labels =
            s.words::<sinks::Label>("labels", Vec::new(), doc).iter().map(ToString::to_string).collect();
        let doc =
            "Where names of pods come from. Without them alerts have the pod's UID and the container's id.";
        let kubernetes = s.section("kubernetes", doc, |s| Kubernetes::read(s, base));
        let doc = "Which servers are watched. What is not known, such as a pod in its first moment, is.";
        let watch = s.section("watch", doc, kubernetes::read_watch);
        kubernetes::check(s, &kubernetes, &watch);
        let state = s.section("state", "What survives a restart of the sensor.", State::read);
        let spool = s.section("spool", "How alerts wait until every sink has them.", Spool::read);
        let store = s.section("store", "What can be searched later.", Store::read);
        let doc = "Where the running sensor can be asked; docs/stream.md describes what.";
        let control = s.section("control", doc, |s| control::read(s, base, resolver));
        Self {
            capture,
            flows,
            http,
            tokens,
            routes,
            lists,
            geo,
            time_zone,
            rules,
            rules_dir,
            alerts,
            privacy,
            pseudonym_key: None,
            stdout,
            sinks,
            metrics,
            state,
            node,
            labels,
            kubernetes,
            watch,
            spool,
            store,
            control,
        }
    }
}

/// The configuration of an empty file.
#[must_use]
pub fn shipped(cards: &[&'static About]) -> Option<Loaded> {
    parse("defaults", "", Path::new(""), &Environment::default(), cards, Secrets::Optional).ok()
}
