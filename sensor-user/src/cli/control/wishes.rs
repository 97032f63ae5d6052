//! The flags that say which events somebody wants: the same for every command that shows some.

use clap::Args;

use crate::capture::Time;
use crate::cli::Failure;
use crate::control::Filter;

/// What is wanted.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Wishes {
    /// Nothing older: 10m, 2h, 3d, or 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing newer
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At least this bad: low, medium, high, critical
    #[arg(long, value_name = "SEVERITY")]
    min_severity: Option<String>,
    /// These rules, with * for any letters; `incident` names incidents; again for more
    #[arg(long, value_name = "ID")]
    rule: Vec<String>,
    /// This principal: alice, or alice@idp
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Clients of this address or network
    #[arg(long, value_name = "CIDR")]
    address: Option<String>,
    /// Workloads of this namespace, with * for any letters; again for more
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
}

impl Wishes {
    /// The filter. Times are fixed now: who connects again later wants the same.
    pub(in crate::cli) fn filter(&self, now: Time) -> Result<Filter, Failure> {
        let once = [
            ("since", &self.since),
            ("until", &self.until),
            ("min_severity", &self.min_severity),
            ("principal", &self.principal),
            ("address", &self.address),
        ];
        let once = once.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let lists = self.rule.iter().map(|rule| ("rule", rule));
        let lists = lists.chain(self.namespace.iter().map(|name| ("namespace", name)));
        let mut filter = Filter::default();
        for (name, value) in once.chain(lists) {
            filter.take(name, value, now).map_err(|refusal| {
                let name = name.replace('_', "-");
                Failure::Usage(format!(
                    "--{name} is {}: write {}",
                    crate::telemetry::printable(value),
                    refusal.remedy
                ))
            })?;
        }
        Ok(filter)
    }

    /// Whether a beginning was named.
    pub(in crate::cli) const fn has_since(&self) -> bool {
        self.since.is_some()
    }
}
