//! Which of the hosts that fit is best: the emptiest, unless a soft group policy says otherwise.
use super::{Host, Spec};

/// More than any difference in room.
const SOFT_POLICY: f64 = 10.0;

pub(super) fn of(host: &Host<'_>, spec: &Spec) -> f64 {
    host.share_free("MEMORY_MB") + host.share_free("VCPU") + SOFT_POLICY * group(host, spec)
}

fn group(host: &Host<'_>, spec: &Spec) -> f64 {
    let Some(group) = &spec.group else { return 0.0 };
    let here = group.members.get(&host.facts.name).copied().unwrap_or(0) as f64;
    match group.policy.as_str() {
        "soft-affinity" => here,
        "soft-anti-affinity" => -here,
        _ => 0.0,
    }
}
