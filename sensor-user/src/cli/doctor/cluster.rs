//! Whether the Kubernetes API tells the names of this node's pods: it is really asked.

use jiff::Timestamp;

use super::Check;
use crate::capture::ebpf::Status;
use crate::cli::control::event_loop;
use crate::config::Config;
use crate::config::kubernetes::Enabled;
use crate::enrich::cluster::ask::ask;
use crate::enrich::cluster::client::is_pod;
use crate::enrich::cluster::trouble::Told;
use crate::runtime::following;

/// None where there is no API to ask. What is wrong is a warning: without names the sensor works.
pub(super) fn check(config: &Config) -> Option<Check> {
    let Some(settings) = following(config) else { return unasked(config.kubernetes.enabled, is_pod()) };
    let Ok(events) = event_loop() else {
        return Some(Check::new("kubernetes", Status::Warn, "no event loop to ask with"));
    };
    let told = match events.block_on(ask(&settings, Timestamp::now)) {
        Err(told) => told,
        Ok(any) => match settings.doubt() {
            Some(doubt) => doubt,
            None if any => {
                let text = format!("the API server tells of the pods on node {}", settings.node);
                return Some(Check::new("kubernetes", Status::Ok, text));
            }
            None => settings.nobody(),
        },
    };
    Some(warning(told))
}

fn warning(Told { text, remedy }: Told) -> Check {
    Check::new("kubernetes", Status::Warn, text).remedy(remedy)
}

/// In a cluster, not to ask may be a wish or an oversight.
fn unasked(enabled: Enabled, in_pod: bool) -> Option<Check> {
    let text = "the API is not asked, and pods have no names";
    in_pod.then(|| match enabled {
        Enabled::No => Check::new("kubernetes", Status::Ok, text),
        Enabled::Auto | Enabled::Yes => {
            Check::new("kubernetes", Status::Warn, format!("{text}: no service account's token is mounted"))
                .remedy(
                    "set `automountServiceAccountToken: true`, or `kubernetes.enabled: false` to do without",
                )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_a_token_is_told_so_unless_it_wants_none() {
        assert_eq!(unasked(Enabled::Auto, false), None);
        let wanted = unasked(Enabled::No, true).map(|check| check.status);
        assert_eq!(wanted, Some(Status::Ok));
        let lacking = unasked(Enabled::Auto, true).unwrap();
        assert_eq!(lacking.status, Status::Warn);
        assert!(lacking.remedy.unwrap().contains("automountServiceAccountToken"));
    }
}
