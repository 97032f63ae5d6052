//! Bodies by template: what there is in them, how much they may cost, and how mistakes are found before the first
//! alert.
//!
//! Templates are Jinja (minijinja). Nothing is escaped unasked: whoever writes JSON says `tojson`. When the
//! configuration is read every template is rendered for samples of an alert with everything, an alert with nothing
//! and an incident, strictly: a name that does not exist is a mistake then, and so is a body that is not of its
//! content type. Later, what an event does not have is empty: an alert is never lost for a missing detail.

use std::io;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::facts::Facts;
use super::preset::Shape;
use crate::render::Told;
use crate::sink::sample;

/// Instructions that one rendering may take: presets need some 150 an event, and batches have 500 events.
const FUEL: u64 = 2_000_000;

/// Longest body, in bytes: four times what a batch of events may have, for templates that say things twice.
const MAX_BODY: usize = 4 << 20;

/// What is wrong with a template, or with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line of the template.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// Renders templates.
pub(super) struct Forms {
    env: Environment<'static>,
    vars: Value,
    node: Arc<str>,
    /// How many events a request may have.
    batch: usize,
}

impl Forms {
    /// With these variables. Strictly: what is not there is an error.
    pub(super) fn new<'a>(
        vars: impl Iterator<Item = (&'a str, &'a str)>,
        node: Arc<str>,
        batch: usize,
        strict: bool,
    ) -> Self {
        let mut env = Environment::new();
        env.set_fuel(Some(FUEL));
        env.set_auto_escape_callback(|_name| AutoEscape::None);
        env.set_undefined_behavior(if strict {
            UndefinedBehavior::Strict
        } else {
            UndefinedBehavior::Chainable
        });
        env.add_filter("cut", move |value: &Value, most: usize| {
            Ok::<_, Error>(cut(&text(value, strict)?, most))
        });
        env.add_filter("plain", move |value: &Value| Ok::<_, Error>(plain(&text(value, strict)?)));
        env.add_filter("slack", move |value: &Value| Ok::<_, Error>(slack(&text(value, strict)?)));
        env.add_filter("uuid", move |value: &Value| Ok::<_, Error>(uuid(&text(value, strict)?)));
        env.add_test("ip", |value: &Value| {
            value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok())
        });
        if strict {
            env.add_filter("tojson", tojson);
        }
        let vars = Value::from_pairs(vars);
        Self { env, vars, node, batch }
    }

    /// Renders a template for these events.
    pub(super) fn render(&self, source: &str, events: &[Arc<Told>]) -> Result<String, Mistake> {
        let facts = |told: &Arc<Told>| Arc::new(Facts::new(Arc::clone(told), Arc::clone(&self.node)));
        let all: Vec<Arc<Facts>> = events.iter().map(facts).collect();
        let root = Root {
            first: all.first().cloned(),
            events: all.into_iter().map(Value::from_dyn_object).collect(),
            vars: self.vars.clone(),
            batch: self.batch,
        };
        let mut out = Bounded(Vec::new());
        let template = self.env.template_from_str(source).map_err(|error| mistake(&error))?;
        template.render_captured_to(Value::from_object(root), &mut out).map_err(|error| mistake(&error))?;
        String::from_utf8(out.0).map_err(|error| Mistake { line: None, message: error.to_string() })
    }

    /// Renders a template for each sample, and a batch of them where there are batches.
    pub(super) fn check(&self, source: &str, shape: Shape) -> Result<(), Mistake> {
        let samples = sample::all();
        for one in &samples {
            shape.check(&self.render(source, std::slice::from_ref(one))?)?;
        }
        if self.batch > 1 {
            shape.check(&self.render(source, &samples)?)?;
        }
        Ok(())
    }
}

/// Says what is wrong without what the template held: it may have been a secret.
fn mistake(error: &Error) -> Mistake {
    let what = match error.kind() {
        ErrorKind::UndefinedError => "there is no such name, or it is not in every event",
        ErrorKind::OutOfFuel => "it takes too many steps",
        ErrorKind::WriteFailure => "it makes more than 4 MiB",
        _ => "",
    };
    let detail = error.detail().unwrap_or_default();
    let message = match (what, detail) {
        ("", "") => error.kind().to_string(),
        ("", detail) => format!("{}: {detail}", error.kind()),
        (what, "") => what.to_owned(),
        (what, detail) => format!("{what}: {detail}"),
    };
    Mistake { line: error.line(), message }
}

/// What names mean at the top: those of the first event, the events, and the variables.
#[derive(Debug)]
struct Root {
    first: Option<Arc<Facts>>,
    events: Vec<Value>,
    vars: Value,
    batch: usize,
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "events" => Some(Value::from(self.events.clone())),
            "vars" => Some(self.vars.clone()),
            "batch" => Some(Value::from(self.batch)),
            name => self.first.as_ref()?.fact(name),
        }
    }
}

/// A body that ends where it gets too long.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BODY {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as text; what is not there is an error, or nothing.
fn text(value: &Value, strict: bool) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() && strict => Err(ErrorKind::UndefinedError.into()),
        None if value.is_undefined() || value.is_none() => Ok(String::new()),
        None => Ok(value.to_string()),
    }
}

/// As ever, but what is not there is no `null`.
fn tojson(value: &Value, indent: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    minijinja::filters::tojson(value, indent, more)
}

/// At most so many characters; an ellipsis stands for the rest.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// On one line, without what cards and workflows would take for their own templates.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = ' ';
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if matches!((last, c), ('{' | '$' | '@', '{') | ('}', '}')) {
            out.push(' ');
        }
        out.push(c);
        last = c;
    }
    out
}

/// What Slack's markup would take for links, mentions and commands is only text.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The UUID of the same 128 bits as a ULID; what is none stays as it is.
fn uuid(text: &str) -> String {
    let Ok(id) = ulid::Ulid::from_string(text) else { return text.to_owned() };
    let hex = format!("{:032x}", id.0);
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(strict: bool) -> Forms {
        Forms::new([("a", "x\"y")].into_iter(), "node-1".into(), 1, strict)
    }

    fn rendered(source: &str) -> Result<String, Mistake> {
        forms(true).render(source, &sample::all())
    }

    #[test]
    fn names_are_facts_of_the_first_event() {
        let all = "{{ rule }} {{ severity }} {{ priority }} {{ node }} {{ vars.a }} {{ events|length }} {{ batch }}";
        assert_eq!(rendered(all).unwrap(), "brute-force High P1 node-1 x\"y 3 1");
        let each = "{% for e in events %}{{ e.kind }},{% endfor %}";
        assert_eq!(rendered(each).unwrap(), "alert,alert,incident,");
        assert_eq!(rendered("{{ event.class_uid }} {{ status }}").unwrap(), "2004 401");
    }

    #[test]
    fn every_name_that_is_documented_is_there_and_no_other() {
        let facts = Facts::new(Arc::clone(&sample::all()[0]), "n".into());
        for name in super::super::facts::NAMES {
            assert!(facts.fact(name).is_some(), "{name}");
        }
        assert!(facts.fact("nonsense").is_none());
    }

    #[test]
    fn a_mistake_is_found_with_its_line() {
        let wrong = rendered("{\n \"a\": {{ principle|tojson }}\n}").unwrap_err();
        assert_eq!(wrong.line, Some(2));
        assert!(wrong.message.contains("no such name"), "{}", wrong.message);
        assert_eq!(rendered("a\nb\n{% if %}").unwrap_err().line, Some(3));
        assert!(rendered("{{ title|nofilter }}").is_err());
    }

    #[test]
    fn later_a_missing_detail_is_empty() {
        let source = "[{{ event.a.b.c }}]{{ event.a.b|tojson }}{{ event.a|cut(3) }}{{ status|plain }}";
        let text = forms(false).render(source, &[Arc::new(sample::bare())]);
        assert_eq!(text.unwrap(), "[]null");
    }

    #[test]
    fn a_template_cannot_run_for_ever_or_fill_memory() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(rendered(endless).unwrap_err().message.contains("too many steps"));
        let large = "{% for a in range(9999) %}{{ json }}{% endfor %}";
        let wrong = rendered(large).unwrap_err();
        assert!(wrong.message.contains("4 MiB"), "{}", wrong.message);
    }

    #[test]
    fn json_by_quotes_alone_is_found_out() {
        assert!(forms(true).check("{\"a\": {{ message|tojson }}}", Shape::Json).is_ok());
        let wrong = forms(true).check("{\"a\": \"{{ message }}\"}", Shape::Json).unwrap_err();
        assert!(wrong.message.contains("tojson"), "{}", wrong.message);
    }

    #[test]
    fn filters_do_what_they_say() {
        assert_eq!(cut("abcdef", 3), "ab…");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(slack("<!channel> & <@U1>"), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
        assert_eq!(plain("{{DATE()}}\n${x} @{y} {{{"), "{ {DATE()} } $ {x} @ {y} { { {");
        assert_eq!(uuid("01ARZ3NDEKTSV4RRFFQ69G5FAV"), "01563e3a-b5d3-d676-4c61-efb99302bd5b");
        assert_eq!(uuid("x"), "x");
    }
}
