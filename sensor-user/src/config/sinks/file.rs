//! Keys of a sink of type `file`.

use std::path::PathBuf;

use jiff::tz::TimeZone;

use crate::config::Format;
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::config::traffic::Zone;
use crate::config::word::{Word, Wrong, choose};
use crate::sink::file::name::{Grain, Pattern};
use crate::sink::file::{Packing, Settings};

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "The file. %Y, %m, %d and %H in its name stand for the time of the events.";
    let path = s.required::<PathBuf>("path", doc).map(|path| Pattern::new(&resolver.base.join(path)));
    let path = match path {
        Some(Err(wrong)) => {
            s.report(Problem::error(s.span_of("path"), format!("`path`: {wrong}")));
            None
        }
        other => other.and_then(Result::ok),
    };
    let format = format(s, "json, ocsf, ecs, falco, cef or compact: one line an event.");
    let doc = "Bytes of a file at most; then it becomes an old one and another is begun. 0: no such limit.";
    let max_bytes = Some(s.number("max_bytes", 100 << 20, 0..=1 << 40, doc)).filter(|most| *most > 0);
    let doc = "How often a file becomes an old one besides: never, hourly or daily.";
    let every = s.word("rotate", Every(Grain::None), doc).0;
    let doc = "Old files that are kept.";
    let keep = usize::try_from(s.number("keep", 10, 1..=10_000, doc)).unwrap_or(10);
    let doc = "How old files but the newest are packed: none, gzip or zstd.";
    let packing = s.word("compress", Packing::None, doc);
    let doc = "Whether each delivery is made to last through a loss of power before it counts as delivered.";
    let sync = s.word("sync", false, doc);
    let doc = "Where days and hours begin: a time zone such as Europe/Berlin, or system.";
    let zone = match s.word("time_zone", Zone::Named("UTC".into()), doc) {
        Zone::System => TimeZone::system(),
        Zone::Named(name) => TimeZone::get(&name).unwrap_or(TimeZone::UTC),
    };
    Some(Settings { path: path?, format, max_bytes, every, keep, packing, sync, zone })
}

/// Reads the form of an event where each must be one line.
pub(super) fn format(s: &mut Section<'_, '_>, doc: &str) -> crate::render::Format {
    let format = crate::render::Format::from(s.word("format", Format::Json, doc));
    if !format.is_line() {
        let message = "`format` is yaml, of which an event is more than one line";
        s.report(Problem::error(s.span_of("format"), message));
    }
    format
}

struct Every(Grain);

const EVERY: [(&str, Grain); 3] = [("never", Grain::None), ("hourly", Grain::Hour), ("daily", Grain::Day)];

impl Word for Every {
    const WHAT: &'static str = "never, hourly or daily";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &EVERY).map(Self)
    }

    fn show(&self) -> String {
        EVERY.iter().find(|(_, grain)| *grain == self.0).map_or("never", |(name, _)| name).to_owned()
    }
}

const PACKINGS: [(&str, Packing); 3] =
    [("none", Packing::None), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)];

impl Word for Packing {
    const WHAT: &'static str = "none, gzip or zstd";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &PACKINGS)
    }

    fn show(&self) -> String {
        PACKINGS.iter().find(|(_, packing)| packing == self).map_or("none", |(name, _)| name).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::sinks::staging;

    fn settings(text: &str) -> (Option<Settings>, Vec<String>) {
        staging::settings(text, read)
    }

    fn wrong(text: &str, with: &str) {
        staging::wrong(text, with, read);
    }

    #[test]
    fn a_path_is_enough() {
        let (settings, problems) = settings("path: alerts-%Y-%m-%d.jsonl");
        assert_eq!(problems, Vec::<String>::new());
        let settings = settings.unwrap();
        assert_eq!(settings.path.as_written(), Path::new("/base/alerts-%Y-%m-%d.jsonl"));
        assert_eq!((settings.max_bytes, settings.keep, settings.sync), (Some(100 << 20), 10, false));
        assert_eq!(settings.zone, TimeZone::UTC);
    }

    #[test]
    fn what_is_wrong_is_found_when_it_is_read() {
        wrong("keep: 3", "`path` is missing");
        wrong("path: /x/a-%d", "needs `%m`");
        wrong("path: /x/a\nformat: yaml", "more than one line");
        wrong("path: /x/a\ncompress: gz", "must be one of none, gzip, zstd");
        wrong("path: /x/a\nrotate: weekly", "must be one of never, hourly, daily");
        wrong("path: /x/a\nkeep: 0", "from 1 to 10000");
    }
}
