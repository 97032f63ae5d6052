//! Names: a path with the day or the hour in it, and which old files belong to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A path of which the last part may hold `%Y`, `%m`, `%d` and `%H`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    dir: PathBuf,
    parts: Vec<Part>,
    shown: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    Month,
    Day,
    Hour,
}

/// A day, an hour, or less: what is not asked for is 0. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
}

/// How much of a time a [`Stamp`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// Nothing.
    #[default]
    None,
    /// The year.
    Year,
    /// The month.
    Month,
    /// The day.
    Day,
    /// The hour.
    Hour,
}

impl Stamp {
    /// The stamp of a time in milliseconds since the epoch.
    #[must_use]
    pub fn of(time_ms: u64, zone: &TimeZone, grain: Grain) -> Self {
        let stamp = Timestamp::from_millisecond(i64::try_from(time_ms).unwrap_or(i64::MAX));
        let at = stamp.unwrap_or(Timestamp::MAX).to_zoned(zone.clone());
        let whole = Self { year: at.year(), month: at.month(), day: at.day(), hour: at.hour() };
        whole.down_to(grain)
    }

    /// What is left of it when less is asked for.
    #[must_use]
    pub fn down_to(self, grain: Grain) -> Self {
        Self {
            year: if grain >= Grain::Year { self.year } else { 0 },
            month: if grain >= Grain::Month { self.month } else { 0 },
            day: if grain >= Grain::Day { self.day } else { 0 },
            hour: if grain >= Grain::Hour { self.hour } else { 0 },
        }
    }
}

/// Why a path is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A letter behind `%` that stands for nothing.
    #[error("`%{0}` stands for nothing; there are %Y, %m, %d, %H, and %% for a percent sign")]
    Letter(char),
    /// In the directory.
    #[error("`%` may stand in the file's name only, not in its directory")]
    Directory,
    /// `%d` without `%m`: the names would come again.
    #[error("`%{0}` needs `%{1}`: without it the names of files come again")]
    Comes(char, char),
    /// No name.
    #[error("it names no file")]
    NoName,
}

impl Pattern {
    /// Reads a path.
    ///
    /// # Errors
    /// When names would be ambiguous.
    pub fn new(path: &Path) -> Result<Self, Wrong> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(Wrong::NoName)?;
        let dir = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        if dir.to_string_lossy().contains('%') {
            return Err(Wrong::Directory);
        }
        let (mut parts, mut text, mut letters) = (Vec::new(), String::new(), name.chars());
        while let Some(c) = letters.next() {
            let part = match (c, if c == '%' { letters.next() } else { None }) {
                ('%', Some('Y')) => Part::Year,
                ('%', Some('m')) => Part::Month,
                ('%', Some('d')) => Part::Day,
                ('%', Some('H')) => Part::Hour,
                ('%', Some('%')) => {
                    text.push('%');
                    continue;
                }
                ('%', other) => return Err(Wrong::Letter(other.unwrap_or(' '))),
                _ => {
                    text.push(c);
                    continue;
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        let order = [('Y', Part::Year), ('m', Part::Month), ('d', Part::Day), ('H', Part::Hour)];
        for pair in order.windows(2) {
            if let [(coarse, first), (fine, second)] = pair
                && parts.contains(second)
                && !parts.contains(first)
            {
                return Err(Wrong::Comes(*fine, *coarse));
            }
        }
        Ok(Self { dir, parts, shown: path.to_owned() })
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_written(&self) -> &Path {
        &self.shown
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        if self.dir.as_os_str().is_empty() { Path::new(".") } else { &self.dir }
    }

    /// How much of the time the name says.
    #[must_use]
    pub fn grain(&self) -> Grain {
        let of = |part: &Part| match part {
            Part::Text(_) => Grain::None,
            Part::Year => Grain::Year,
            Part::Month => Grain::Month,
            Part::Day => Grain::Day,
            Part::Hour => Grain::Hour,
        };
        self.parts.iter().map(of).max().unwrap_or_default()
    }

    fn name(&self, at: Stamp) -> String {
        let mut name = String::new();
        for part in &self.parts {
            let _ = match part {
                Part::Text(text) => write!(name, "{text}"),
                Part::Year => write!(name, "{:04}", at.year),
                Part::Month => write!(name, "{:02}", at.month),
                Part::Day => write!(name, "{:02}", at.day),
                Part::Hour => write!(name, "{:02}", at.hour),
            };
        }
        name
    }

    /// The file of this time.
    #[must_use]
    pub fn path(&self, at: Stamp) -> PathBuf {
        self.dir.join(self.name(at))
    }

    /// The old file of this time with this number, packed or not.
    #[must_use]
    pub fn old_path(&self, old: &Old) -> PathBuf {
        let number = if old.number == 0 { String::new() } else { format!(".{}", old.number) };
        self.dir.join(format!("{}{number}{}", self.name(old.at), old.packed))
    }

    /// Which file of this pattern it is, if it is one.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Old> {
        let (mut at, mut rest) = (Stamp::default(), name);
        for part in &self.parts {
            rest = match part {
                Part::Text(text) => rest.strip_prefix(text.as_str())?,
                Part::Year => digits(rest, 4, |n| at.year = n)?,
                Part::Month => digits(rest, 2, |n| at.month = i8::try_from(n).unwrap_or(0))?,
                Part::Day => digits(rest, 2, |n| at.day = i8::try_from(n).unwrap_or(0))?,
                Part::Hour => digits(rest, 2, |n| at.hour = i8::try_from(n).unwrap_or(0))?,
            };
        }
        let packed = PACKED.into_iter().find(|end| rest.ends_with(end)).unwrap_or("");
        let number = rest.strip_suffix(packed)?;
        let number = match number.strip_prefix('.') {
            Some(digits) if !digits.starts_with(['0', '+']) => digits.parse().ok()?,
            None if number.is_empty() => 0,
            _ => return None,
        };
        Some(Old { at, number, packed })
    }
}

/// What packed files end in.
const PACKED: [&str; 2] = [".gz", ".zst"];

/// A file of a pattern: newer ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Its time.
    pub at: Stamp,
    /// 0 while it is written, then counted up each time that another becomes old.
    pub number: u32,
    /// What packing added to its name.
    pub packed: &'static str,
}

fn digits(text: &str, count: usize, mut keep: impl FnMut(i16)) -> Option<&str> {
    let (digits, rest) = text.split_at_checked(count)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    keep(digits.parse().ok()?);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_284_245_123;

    fn pattern(path: &str) -> Pattern {
        Pattern::new(Path::new(path)).unwrap()
    }

    #[test]
    fn the_name_says_the_day_where_it_is_asked_to() {
        let daily = pattern("/x/a-%Y-%m-%d.jsonl");
        let at = |zone| Stamp::of(NOW + 6 * 3_600_000, &zone, daily.grain());
        assert_eq!(daily.path(at(TimeZone::UTC)), Path::new("/x/a-2026-11-22.jsonl"));
        assert_eq!(
            daily.path(at(TimeZone::get("America/New_York").unwrap())),
            Path::new("/x/a-2026-11-21.jsonl")
        );
        let plain = pattern("a.jsonl");
        assert_eq!((plain.grain(), plain.path(Stamp::default())), (Grain::None, "a.jsonl".into()));
        assert_eq!(plain.dir(), Path::new("."));
        assert_eq!(pattern("/x/100%%").path(Stamp::default()), Path::new("/x/100%"));
    }

    #[test]
    fn names_that_would_come_again_are_refused() {
        let wrong = |path: &str| Pattern::new(Path::new(path)).unwrap_err();
        assert_eq!(wrong("/x/a-%d"), Wrong::Comes('d', 'm'));
        assert_eq!(wrong("/x/a-%Y-%H"), Wrong::Comes('H', 'd'));
        assert_eq!(wrong("/x/a-%s"), Wrong::Letter('s'));
        assert_eq!(wrong("/x/a%"), Wrong::Letter(' '));
        assert_eq!(wrong("/x/%Y/a"), Wrong::Directory);
        assert_eq!(wrong("/"), Wrong::NoName);
    }

    #[test]
    fn old_files_are_told_from_strangers() {
        let daily = pattern("/x/a-%Y-%m-%d.jsonl");
        for name in [
            "a-2026-11-21.jsonl",
            "a-2026-11-21.jsonl.1",
            "a-2026-11-21.jsonl.12.gz",
            "a-2026-11-21.jsonl.zst",
        ] {
            let old = daily.read(name).unwrap();
            assert_eq!(daily.old_path(&old), Path::new("/x").join(name));
        }
        let strangers = [
            "a-2026-11-21.jsonl.bak",
            "a-2026-11-21.jsonl.01",
            "a-2026-11-21.jsonl.0",
            "a-2026-11-21.jsonl.1.tmp",
            "a-2026-11-2.jsonl",
            "a-2026-11-21.json",
            "b-2026-11-21.jsonl",
            "a-2026-1\u{661}-21.jsonl",
            "a-2026-11-21.jsonl.99999999999",
        ];
        assert!(strangers.iter().all(|name| daily.read(name).is_none()));
    }
}
