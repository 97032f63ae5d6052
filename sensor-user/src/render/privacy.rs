//! Privacy: what an event may show of people, decided once for every sink and store.
//!
//! Rules write sentences and facts, and none of them has to think of this: every text of an event passes here, and so
//! does that of a rule that is yet to be written. Four things are done to each. Secrets beside their names are taken
//! out ([`redact`]); names of the people in the exchange become pseudonyms, if there is a key ([`names`],
//! [`pseudonym`]); every address but the server's is masked, if asked for; and what gives people away by its form is
//! masked in part ([`mask`]). One thing is hidden in the same way wherever it stands.

pub mod mask;
pub mod names;
pub mod pseudonym;
pub mod redact;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use self::mask::Masks;
use self::names::Names;
use self::pseudonym::Pseudonyms;
use self::redact::{REDACTED, Sensitive};
use crate::alert::{Alert, Event, Incident};
use crate::detect::{Principal, Scene};
use crate::render::exchange::Exchanged;

/// Levels of lists and objects that a fact may have: rules make one or two.
const MAX_DEPTH: usize = 8;

/// Names of facts that are about somebody's account or reach, in small letters: their values are masked as a segment
/// of a path is.
const PERSONAL: [&str; 5] = ["email", "phone", "idnumber", "account", "username"];

/// Hides what the configuration wants hidden. By default: secrets, and people in part.
#[derive(Clone, Debug)]
pub struct Privacy {
    mask_addresses: bool,
    pseudonyms: Option<Arc<Pseudonyms>>,
    masks: Masks,
    sensitive: Arc<Sensitive>,
}

impl Default for Privacy {
    fn default() -> Self {
        Self::new(false, None)
    }
}

/// What is known of one event: whom its texts may name, and which addresses are the servers'.
#[derive(Default)]
struct Known {
    names: Names,
    servers: Vec<IpAddr>,
}

/// What a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A sentence, or words of any kind.
    Words,
    /// Parts between `/`, each a name or an id.
    Parts,
}

impl Privacy {
    /// Masks client addresses if asked to; with a key, gives principals pseudonyms that only its holder can resolve.
    #[must_use]
    pub fn new(mask_addresses: bool, pseudonym_key: Option<&[u8]>) -> Self {
        let pseudonyms = pseudonym_key.map(|key| Arc::new(Pseudonyms::new(key)));
        Self { mask_addresses, pseudonyms, masks: Masks::ALL, sensitive: Arc::default() }
    }

    /// Masks only these in part.
    #[must_use]
    pub fn with_masks(self, masks: Masks) -> Self {
        Self { masks, ..self }
    }

    /// Takes out values of these names too.
    #[must_use]
    pub fn with_sensitive_names(self, names: &[String]) -> Self {
        Self { sensitive: Arc::new(Sensitive::with(names)), ..self }
    }

    /// The event as it may be shown.
    #[must_use]
    pub fn event<'a>(&self, event: &'a Event) -> Cow<'a, Event> {
        Cow::Owned(match event {
            Event::Alert(alert) => Event::Alert(Box::new(self.apply(alert).into_owned())),
            Event::Incident(incident) => Event::Incident(Box::new(self.incident(incident))),
        })
    }

    /// Who a principal is, as it may be shown.
    #[must_use]
    pub fn who(&self, alert: &Alert) -> Option<String> {
        let mut principal = alert.finding.principal.clone()?;
        principal.subject = self.subject(&principal.subject).into();
        Some(crate::render::shown::principal(&principal))
    }

    /// Somebody's name, as it may be shown: their pseudonym, or what is left of it.
    #[must_use]
    pub fn subject(&self, name: &str) -> String {
        match &self.pseudonyms {
            Some(pseudonyms) => pseudonyms.of(name),
            None => self.text(name, Form::Words, &Known::default(), false),
        }
    }

    /// A client's address, as it may be shown.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> IpAddr {
        if self.mask_addresses { mask::address(address) } else { address }
    }

    /// A path or a route, as it may be shown, of an exchange in which these people are named.
    #[must_use]
    pub fn path<'n>(&self, path: &str, people: impl Iterator<Item = &'n str>) -> String {
        let known = Known { names: self.names(people), servers: Vec::new() };
        self.text(path, Form::Parts, &known, self.mask_addresses)
    }

    /// Any other text, as it may be shown, of an exchange in which these people are named.
    #[must_use]
    pub fn words<'n>(&self, words: &str, people: impl Iterator<Item = &'n str>) -> String {
        let known = Known { names: self.names(people), servers: Vec::new() };
        self.text(words, Form::Words, &known, self.mask_addresses)
    }

    /// The alert as it may be shown.
    #[must_use]
    pub fn apply<'a>(&self, alert: &'a Alert) -> Cow<'a, Alert> {
        let known = self.known(alert);
        let words = |text: &str| self.text(text, Form::Words, &known, self.mask_addresses);
        let mut alert = alert.clone();
        let finding = &mut alert.finding;
        finding.message = words(&finding.message);
        finding.brief = words(&finding.brief);
        for (name, value) in &mut finding.facts {
            *value = if value.is_string() && self.sensitive.is_exactly(name) {
                REDACTED.into()
            } else {
                self.fact(name, value, &known, MAX_DEPTH)
            };
        }
        if let Some(principal) = &mut finding.principal {
            self.principal(principal);
        }
        if let Some(scene) = &mut finding.scene {
            self.scene(scene, &known);
        }
        Cow::Owned(alert)
    }

    fn scene(&self, scene: &mut Scene, known: &Known) {
        let show = |text: &str, form| self.text(text, form, known, self.mask_addresses);
        scene.client = self.address(scene.client);
        let peer = self.address(scene.endpoints.client.ip());
        scene.endpoints.client.set_ip(peer);
        scene.path = show(&scene.path, Form::Parts).into();
        scene.route = show(&scene.route, Form::Parts).into();
        scene.method = show(&scene.method, Form::Words).into();
        scene.host = scene.host.as_deref().map(|host| show(host, Form::Words).into());
        scene.user_agent = scene.user_agent.as_deref().map(|agent| show(agent, Form::Words).into());
        scene.names.clear();
    }

    /// Hides what must not be shown of an exchange.
    pub fn exchange(&self, of: &mut Exchanged) {
        let clients = [Some(of.client.to_canonical())];
        let server = Some(of.server.ip().to_canonical()).filter(|server| !clients.contains(&Some(*server)));
        let people = of.tokens.iter().filter_map(|token| Some(&*token.principal.as_ref()?.subject));
        let known = Known { names: self.names(people), servers: server.into_iter().collect() };
        let show = |text: &str, form| self.text(text, form, &known, self.mask_addresses);
        of.client = self.address(of.client);
        of.path = show(&of.path, Form::Parts).into();
        of.route = show(&of.route, Form::Parts).into();
        of.method = show(&of.method, Form::Words).into();
        of.host = of.host.as_deref().map(|host| show(host, Form::Words).into());
        of.user_agent = of.user_agent.as_deref().map(|agent| show(agent, Form::Words).into());
        for principal in of.tokens.iter_mut().filter_map(|token| token.principal.as_mut()) {
            self.principal(principal);
        }
    }

    /// Who somebody is, as it may be shown. An issuer is a server: its address is its name.
    fn principal(&self, principal: &mut Principal) {
        principal.subject = self.subject(&principal.subject).into();
        let issuer = principal.issuer.as_deref();
        principal.issuer = issuer.map(|text| self.text(text, Form::Words, &Known::default(), false).into());
    }

    fn incident(&self, incident: &Incident) -> Incident {
        let mut incident = incident.clone();
        let subjects = incident.principals.iter().map(|(subject, _)| &**subject);
        let names = self.names(incident.people.iter().map(|name| &**name).chain(subjects));
        let clients = &incident.addresses;
        let servers = incident.services.iter().map(|server| server.ip().to_canonical());
        let known = Known { names, servers: servers.filter(|server| !clients.contains(server)).collect() };
        for route in &mut incident.routes {
            *route = self.text(route, Form::Parts, &known, self.mask_addresses).into();
        }
        for (subject, issuer) in &mut incident.principals {
            *subject = self.subject(subject).into();
            *issuer = issuer.as_deref().map(|text| self.text(text, Form::Words, &known, false).into());
        }
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(incident.addresses.len());
        for address in incident.addresses.drain(..).map(|address| self.address(address)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        incident.addresses = addresses;
        incident.people.clear();
        incident
    }

    fn known(&self, alert: &Alert) -> Known {
        let finding = &alert.finding;
        let scene = finding.scene.as_deref();
        let subject = finding.principal.as_ref().map(|principal| &*principal.subject);
        let names = scene.into_iter().flat_map(|scene| &scene.names).map(|name| &**name).chain(subject);
        let server = scene.map(|scene| scene.endpoints.server.ip().to_canonical());
        let is_client = |server: &IpAddr| {
            scene.is_some_and(|s| {
                [s.client, s.endpoints.client.ip()].iter().any(|client| client.to_canonical() == *server)
            })
        };
        Known {
            names: self.names(names),
            servers: server.filter(|server| !is_client(server)).into_iter().collect(),
        }
    }

    fn names<'n>(&self, names: impl Iterator<Item = &'n str>) -> Names {
        self.pseudonyms.as_deref().map(|pseudonyms| Names::new(names, pseudonyms)).unwrap_or_default()
    }

    /// A text as it may be shown. Names go first: they may hold what is masked by its form.
    fn text(&self, text: &str, form: Form, known: &Known, addresses: bool) -> String {
        let text = known.names.hide(Cow::Borrowed(text));
        let text = self.sensitive.redact(&text);
        let text = if addresses { mask::addresses(text, &known.servers) } else { text };
        match form {
            Form::Words => mask::people(&text, self.masks).into_owned(),
            Form::Parts => mask::segments(&text, self.masks).into_owned(),
        }
    }

    /// What a rule found out, at any depth.
    fn fact(&self, name: &str, value: &Value, known: &Known, depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1) else { return "…".into() };
        match value {
            Value::String(text) => {
                let name = name.to_ascii_lowercase().replace(['_', '.', '-'], "");
                let form =
                    if PERSONAL.iter().any(|known| name.contains(known)) { Form::Parts } else { Form::Words };
                self.text(text, form, known, self.mask_addresses).into()
            }
            Value::Array(list) => list.iter().map(|value| self.fact(name, value, known, depth)).collect(),
            Value::Object(members) => {
                let show = |(name, value): (&String, &Value)| {
                    let shown = self.text(name, Form::Words, known, self.mask_addresses);
                    let secret = self.sensitive.is(name);
                    (shown, if secret { REDACTED.into() } else { self.fact(name, value, known, depth) })
                };
                Value::Object(members.iter().map(show).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::staging::{alert, incident};
    use crate::render::Format;
    use crate::render::exchange::ApiActivity;
    use crate::render::exchange::staging::exchanged;

    /// Everything that any form says of an event.
    fn told(event: &Event) -> String {
        let mut out = String::new();
        for format in [Format::Compact, Format::Ocsf, Format::Yaml, Format::Ecs] {
            format.render(event, false, &mut out);
        }
        out
    }

    fn shown(privacy: &Privacy, alert: Alert) -> String {
        told(&privacy.event(&Event::Alert(Box::new(alert))))
    }

    #[test]
    fn an_alert_that_shows_nobody_stays_as_it_is() {
        let alert = alert();
        assert_eq!(shown(&Privacy::default(), alert.clone()), told(&Event::Alert(Box::new(alert))));
    }

    #[test]
    fn masks_half_of_a_clients_address() {
        let alert = alert();
        let shown = Privacy::new(true, None).apply(&alert).into_owned();
        let scene = shown.finding.scene.unwrap();
        assert_eq!(
            (scene.client.to_string(), scene.endpoints.client.ip().to_string()),
            ("10.0.0.0".into(), "10.0.0.0".into())
        );
        assert_eq!(scene.endpoints.server.to_string(), "10.0.0.1:8080");
        assert_eq!(mask::address("2001:db8:1:2::3".parse().unwrap()).to_string(), "2001:db8::");
    }

    #[test]
    fn exchanges_are_hidden_like_alerts() {
        let mut shown = crate::render::exchange::staging::exchanged();
        Privacy::default().exchange(&mut shown);
        assert_eq!(shown.principal().map(|p| &*p.subject), Some("alice"));
        Privacy::new(true, Some(b"k")).exchange(&mut shown);
        assert_eq!(shown.client.to_string(), "10.0.0.0");
        assert!(shown.principal().is_some_and(|p| p.subject.starts_with("p-")));
    }

    #[test]
    fn pseudonyms_are_stable_and_depend_on_the_key() {
        let alert = alert();
        let name = |key: &[u8]| {
            Privacy::new(false, Some(key))
                .apply(&alert)
                .finding
                .principal
                .as_ref()
                .unwrap()
                .subject
                .to_string()
        };
        assert_eq!(name(b"one"), name(b"one"));
        assert_ne!(name(b"one"), name(b"two"));
        assert!(name(b"one").starts_with("p-") && !name(b"one").contains("alice"));
    }

    #[test]
    fn one_pseudonym_stands_everywhere() {
        let mut alert = alert();
        let finding = &mut alert.finding;
        finding.message = "Alice came from 10.0.3.7, twice.".into();
        finding.facts = vec![
            ("account", "alice".into()),
            ("others", serde_json::json!([{"who": "alice", "alice": "x", "from": ["10.0.3.7", "10.0.0.1"]}])),
        ];
        let scene = finding.scene.as_mut().unwrap();
        scene.path = "/users/alice/orders".into();
        scene.route = "GET /users/alice/orders".into();
        scene.user_agent = Some("app (alice; 10.0.3.7)".into());
        let all = shown(&Privacy::new(true, Some(b"key")), alert);
        assert!(!all.to_lowercase().contains("alice") && !all.contains("10.0.3.7"), "{all}");
        assert!(all.contains("10.0.0.1"), "the server is shown: {all}");
        let name = Pseudonyms::new(b"key").of("alice");
        assert!(all.contains(&format!("{name} came from 10.0.0.0, twice.")), "{all}");
        assert!(all.contains(&format!("GET /users/{name}/orders")), "{all}");
    }

    #[test]
    fn people_are_masked_in_part_unless_that_is_turned_off() {
        let mut alert = alert();
        let finding = &mut alert.finding;
        finding.principal.as_mut().unwrap().subject = "alice@example.com".into();
        finding.facts = vec![("account", "123456789012".into()), ("user_id", "123456789012".into())];
        finding.scene.as_mut().unwrap().path = "/users/alice@example.com/4111111111111111".into();
        let masked = shown(&Privacy::default(), alert.clone());
        assert!(!masked.contains("alice@") && masked.contains("/users/a…@example.com/…1111"), "{masked}");
        assert!(
            masked.contains("\"account\":\"…9012\"") && masked.contains("\"user_id\":\"123456789012\""),
            "{masked}"
        );
        let whole = shown(&Privacy::default().with_masks(Masks::NONE), alert);
        assert!(whole.contains("/users/alice@example.com/4111111111111111"), "{whole}");
        assert!(whole.contains("\"account\":\"123456789012\""), "{whole}");
    }

    #[test]
    fn secrets_in_facts_are_taken_out() {
        let mut alert = alert();
        alert.finding.facts = vec![
            ("password", "hunter2".into()),
            ("key_url", "https://a.example/k?apiKey=hunter2&v=1".into()),
            ("seen", serde_json::json!({"headers": {"X-My-Pin": "hunter2", "clientSecret": ["hunter2"]}})),
            ("secret_number", 7.into()),
        ];
        let privacy = Privacy::default().with_sensitive_names(&["my_pin".to_owned()]);
        let all = shown(&privacy, alert);
        assert!(!all.contains("hunter2") && all.contains("\"secret_number\":7"), "{all}");
    }

    #[test]
    fn incidents_hide_the_same_people() {
        let mut incident = incident();
        incident.routes = vec!["GET /users/alice/orders".into(), "GET /users/bob".into()];
        incident.people = vec!["bob".into()];
        incident.addresses = ["10.0.3.7", "10.0.9.9", "192.0.2.1"].map(|a| a.parse().unwrap()).to_vec();
        let privacy = Privacy::new(true, Some(b"key"));
        let all = told(&privacy.event(&Event::Incident(Box::new(incident.clone()))));
        for name in ["alice", "bob", "10.0.3.7", "10.0.9.9"] {
            assert!(!all.contains(name), "{name} in {all}");
        }
        let Event::Incident(shown) = privacy.event(&Event::Incident(Box::new(incident))).into_owned() else {
            panic!()
        };
        assert_eq!(
            shown.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0", "192.0.0.0"]
        );
    }

    #[test]
    fn exchanges_hide_the_same_people() {
        let mut of = exchanged();
        of.path = "/users/alice/from/10.0.3.7".into();
        of.user_agent = Some("app of ALICE, alice@example.com".into());
        Privacy::new(true, Some(b"key")).exchange(&mut of);
        let json = serde_json::to_string(&ApiActivity::of(&of)).unwrap().to_lowercase();
        assert!(!json.contains("alice") && !json.contains("10.0.3.7"), "{json}");
        assert!(json.contains("10.0.0.1") && json.contains(&Pseudonyms::new(b"key").of("alice")), "{json}");
    }

    #[test]
    fn a_service_on_the_clients_host_hides_the_client_all_the_same() {
        let mut alert = alert();
        let scene = alert.finding.scene.as_mut().unwrap();
        scene.client = "127.0.0.1".parse().unwrap();
        scene.endpoints.server = "127.0.0.1:8080".parse().unwrap();
        alert.finding.message = "It came from 127.0.0.1.".into();
        let shown = Privacy::new(true, None).apply(&alert).finding.message.clone();
        assert_eq!(shown, "It came from 127.0.0.0.");
    }

    proptest! {
        /// Wherever a rule may write: no rule has to think of privacy.
        #[test]
        fn no_place_of_an_alert_shows_who_or_whence(
            name in "[a-z][a-z0-9]{3,20}(@[a-z]{3,9}\\.example)?",
            octets in any::<[u8; 4]>(),
            place in 0_usize..8,
            words in "[ /(:,]",
        ) {
            let client = IpAddr::from(octets);
            prop_assume!(mask::address(client) != client);
            let mut alert = alert();
            let server = alert.finding.scene.as_ref().unwrap().endpoints.server.ip();
            let plain = told(&Event::Alert(Box::new(alert.clone()))).to_lowercase();
            prop_assume!(client != server && !plain.contains(&name) && !plain.contains(&client.to_string()));
            let text = format!("x{words}{name}{words}{client}{words}y");
            let finding = &mut alert.finding;
            finding.principal.as_mut().unwrap().subject = name.clone().into();
            let scene = finding.scene.as_mut().unwrap();
            scene.names = vec![name.clone().into()];
            (scene.client, scene.endpoints.client) = (client, (client, 4242).into());
            match place {
                0 => finding.message = text,
                1 => finding.brief = text,
                2 => finding.facts.push(("any", text.into())),
                3 => finding.facts.push(("any", serde_json::json!({"deep": [{"er": text}]}))),
                4 => scene.path = text.into(),
                5 => scene.route = text.into(),
                6 => scene.host = Some(text.into()),
                _ => scene.user_agent = Some(text.into()),
            }
            let all = shown(&Privacy::new(true, Some(b"key")), alert);
            prop_assert!(!all.contains(&name), "{name} in {all}");
            prop_assert!(!all.contains(&client.to_string()), "{client} in {all}");
        }
    }
}
