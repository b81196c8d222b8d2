//! Which of the hosts that fit is best: the emptiest, unless a soft group policy says otherwise.
use super::{Host, Spec};
use serde_json::Value;

/// More than any difference in room.
const SOFT_POLICY: f64 = 10.0;

pub(super) fn of(host: &Host<'_>, spec: &Spec) -> f64 {
    share_free(host, "MEMORY_MB") + share_free(host, "VCPU") + SOFT_POLICY * group(host, spec)
}

fn share_free(host: &Host<'_>, class: &str) -> f64 {
    let inventory = host.provider.get("inventories").and_then(|i| i.get(class));
    let number = |key: &str| inventory.and_then(|i| i.get(key)).and_then(Value::as_f64);
    let capacity = number("total").unwrap_or(0.0) * number("allocation_ratio").unwrap_or(1.0);
    if capacity > 0.0 { host.free(class) as f64 / capacity } else { 0.0 }
}

fn group(host: &Host<'_>, spec: &Spec) -> f64 {
    let Some(group) = &spec.group else { return 0.0 };
    let here = group.members.get(host.name).copied().unwrap_or(0) as f64;
    match group.policy.as_str() {
        "soft-affinity" => here,
        "soft-anti-affinity" => -here,
        _ => 0.0,
    }
}
