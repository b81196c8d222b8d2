//! Which hosts a server may go to, one rule per function.
use super::{Host, Spec};
use api::Map;
use serde_json::Value;

const FILTERS: [fn(&Host<'_>, &Spec) -> bool; 8] =
    [is_named, is_serving, is_in_zone, suits_hints, suits_group, has_traits, has_aggregate_specs, has_room];

/// A forced host must only have room.
const FORCED: [fn(&Host<'_>, &Spec) -> bool; 2] = [is_named, has_room];

pub(super) fn passes(host: &Host<'_>, spec: &Spec) -> bool {
    let rules: &[fn(&Host<'_>, &Spec) -> bool] = if spec.forced { &FORCED } else { &FILTERS };
    rules.iter().all(|rule| rule(host, spec))
}

fn is_named(host: &Host<'_>, spec: &Spec) -> bool {
    spec.host.as_ref().is_none_or(|h| *h == host.facts.name) && !spec.avoid.iter().any(|h| *h == host.facts.name)
}

fn is_serving(host: &Host<'_>, _: &Spec) -> bool {
    host.facts.up && !host.facts.disabled
}

fn is_in_zone(host: &Host<'_>, spec: &Spec) -> bool {
    spec.zone.as_ref().is_none_or(|z| *z == host.zone)
}

fn has_room(host: &Host<'_>, spec: &Spec) -> bool {
    spec.resources.iter().all(|(class, amount)| host.has_room(class, *amount))
}

fn has_traits(host: &Host<'_>, spec: &Spec) -> bool {
    spec.extra_specs.iter().all(|(key, value)| match (key.strip_prefix("trait:"), value.as_str()) {
        (Some(name), "required") => host.has_trait(name),
        (Some(name), "forbidden") => !host.has_trait(name),
        _ => true,
    })
}

/// `aggregate_instance_extra_specs:key=value`: some aggregate of the host must say so.
fn has_aggregate_specs(host: &Host<'_>, spec: &Spec) -> bool {
    spec.extra_specs.iter().all(|(key, value)| match key.strip_prefix("aggregate_instance_extra_specs:") {
        Some(name) => {
            let told = |m: &&Map| m.get(name).and_then(Value::as_str).is_some_and(|v| v.split(',').any(|v| v.trim() == value));
            host.aggregates.iter().any(told)
        }
        None => true,
    })
}

fn suits_hints(host: &Host<'_>, spec: &Spec) -> bool {
    spec.same_host.as_ref().is_none_or(|hosts| hosts.iter().any(|h| *h == host.facts.name))
        && !spec.different_host.iter().any(|h| *h == host.facts.name)
}

fn suits_group(host: &Host<'_>, spec: &Spec) -> bool {
    let Some(group) = &spec.group else { return true };
    let here = group.members.get(&host.facts.name).copied().unwrap_or(0);
    match group.policy.as_str() {
        "affinity" => group.members.is_empty() || here > 0,
        "anti-affinity" => here < group.most_per_host,
        _ => true,
    }
}
