//! Extra specs of flavors (Nova api-ref, `os-extra_specs`), and what Nova checks of them since 2.86.
use super::{check_query, flavors};
use crate::{
    common::at,
    resources::Flavor,
    shape::{self, Shape, req},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, load};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

const VALUE: Shape = Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Float]);
const SPECS: Shape = Shape::Map { key: shape::is_metadata_key, of: &VALUE };
const CREATE: Shape = Shape::Object(&[req("extra_specs", &SPECS)]);

async fn list(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    Ok(Reply::ok(json!({ "extra_specs": flavors::look(&call)?.extra_specs })))
}

fn no_key(flavor: &str, key: &str) -> Error {
    Error::not_found(format!("Flavor {flavor} has no extra specs with key {key}."))
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let flavor = flavors::look(&call)?;
    let key = call.param("key");
    let value = flavor.extra_specs.get(key).ok_or_else(|| no_key(&flavor.id, key))?;
    Ok(Reply::ok(json!({ key: value })))
}

/// Values as they are stored: texts.
fn texts(cx: &Cx, specs: &Map) -> Result<BTreeMap<String, String>> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let out: BTreeMap<String, String> = specs.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    if at(cx, 86) {
        out.iter().try_for_each(|(name, value)| check(name, value))?;
    }
    Ok(out)
}

async fn add(call: &Call, specs: BTreeMap<String, String>) -> Result<()> {
    let id = flavors::look(call)?.id;
    call.transact(move |_, tx| {
        let mut flavor: Object<Flavor> = load(tx, &id)?.ok_or_else(|| flavors::missing(&id))?;
        flavor.extra_specs.extend(specs.clone());
        flavor.save(tx)
    })
    .await
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let specs = texts(&call.cx, call.inner("extra_specs")?)?;
    add(&call, specs).await?;
    Ok(Reply::ok(call.json().clone()))
}

async fn update(call: Call) -> Result<Reply> {
    SPECS.check(call.json(), &call.cx)?;
    let input = call.object()?;
    match input.len() {
        1 => {}
        0 => {
            return Err(Error::bad_request(
                "Invalid input for field/attribute extra_specs. Value: {}. {} does not have enough properties",
            ));
        }
        _ => return Err(Error::bad_request("Invalid input for field/attribute extra_specs. The body has too many properties")),
    }
    if !input.contains_key(call.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    let specs = texts(&call.cx, input)?;
    add(&call, specs).await?;
    Ok(Reply::ok(call.json().clone()))
}

async fn delete(call: Call) -> Result<Reply> {
    let (id, key) = (flavors::look(&call)?.id, call.param("key").to_owned());
    call.transact(move |_, tx| {
        let mut flavor: Object<Flavor> = load(tx, &id)?.ok_or_else(|| flavors::missing(&id))?;
        flavor.extra_specs.remove(&key).ok_or_else(|| no_key(&id, &key))?;
        flavor.save(tx)
    })
    .await?;
    Ok(Reply::empty(200))
}

/// What the value of a known extra spec must be.
enum Form {
    Bool,
    Int(i64, i64),
    Choice(&'static str),
    Text(&'static str),
}
use Form::{Bool, Choice, Int, Text};

const CPUS: &str = r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*";
const ANY: &str = r"(?s).*";
const NATURAL: Form = Int(0, i64::MAX);
const COUNT: Form = Int(1, i64::MAX);

/// Names (as regular expressions) and values of extra specs, by Nova's `nova.api.validation.extra_specs`.
static KNOWN: LazyLock<Vec<(regex::Regex, Form)>> = LazyLock::new(|| {
    [
        ("accel:device_profile", Text(ANY)),
        ("aggregate_instance_extra_specs:.+", Text(ANY)),
        (r"capabilities(:\w+)+", Text(ANY)),
        ("hw:(cpu_realtime|hide_hypervisor_id|locked_memory|boot_menu|vif_multiqueue_enabled|mem_encryption|pmu|virtio_packed_ring|ephemeral_encryption)", Bool),
        ("hw:cpu_(realtime|dedicated)_mask", Text(CPUS)),
        ("hw:cpu_policy", Choice("dedicated shared mixed")),
        ("hw:cpu_thread_policy", Choice("prefer isolate require")),
        ("hw:emulator_threads_policy", Choice("isolate share")),
        ("hw:mem_page_size", Text(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)")),
        (r"hw:(numa_nodes|numa_mem\.\d+|cpu_(max_)?(sockets|cores|threads))", COUNT),
        (r"hw:numa_cpus\.\d+", Text(CPUS)),
        ("hw:pci_numa_affinity_policy", Choice("required preferred legacy socket")),
        ("hw:mem_encryption_model", Choice("amd-sev amd-sev-es amd-sev-snp")),
        ("hw:pmem", Text("([a-zA-Z0-9_]+(,)?)+")),
        ("hw:serial_port_count", NATURAL),
        ("hw:tpm_model", Choice("tpm-tis tpm-crb")),
        ("hw:tpm_version", Choice("1.2 2.0")),
        ("hw:tpm_secret_security", Choice("user host deployment")),
        ("hw:watchdog_action", Choice("none pause poweroff reset disabled")),
        ("hw:viommu_model", Choice("intel smmuv3 virtio auto")),
        ("hw:sound_model", Choice("sb16 es1370 pcspk ac97 ich6 ich9 usb virtio")),
        ("hw:usb_model", Choice("none nec-xhci qemu-xhci")),
        ("hw:redirected_usb_ports", Int(0, 15)),
        ("hw:ephemeral_encryption_format", Choice("plain luks luksv2")),
        ("hw_rng:allowed", Bool),
        ("hw_rng:rate_(bytes|period)", NATURAL),
        ("hw_video:ram_max_mb", NATURAL),
        ("hide_hypervisor_id", Bool),
        ("group_policy", Choice("none isolate")),
        ("os:secure_boot", Choice("disabled required")),
        ("pci_passthrough:alias", Text(r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*")),
        ("quota:(cpu|memory|disk_io|vif)_(limit|shares_share)", NATURAL),
        ("quota:(cpu|memory|disk_io|vif)_reservation", Int(i64::MIN, i64::MAX)),
        ("quota:(cpu|memory|disk_io|vif)_shares_level", Choice("custom high normal low")),
        ("quota:cpu_(shares|period)", NATURAL),
        ("quota:cpu_quota", Int(i64::MIN, i64::MAX)),
        ("quota:disk_(read|write|total)_(bytes|iops)_sec", NATURAL),
        ("quota:vif_(inbound|outbound)_(average|peak|burst)", NATURAL),
        ("resources([a-zA-Z0-9_-]{1,64})?:[A-Z0-9_]+", NATURAL),
        ("trait([a-zA-Z0-9_-]{1,64})?:[A-Z0-9_]+", Choice("required forbidden")),
        ("vmware:(hw_version|storage_policy)", Text(ANY)),
    ]
    .into_iter()
    .filter_map(|(name, form)| Some((regex::Regex::new(&format!("^(?:{name})$")).ok()?, form)))
    .collect()
});

/// Namespaces in which an unknown name is a mistake; others are left to who uses them.
const NAMESPACES: &str = "^(accel|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|os|pci_passthrough|quota|resources[a-zA-Z0-9_-]*|trait[a-zA-Z0-9_-]*|vmware)$";

fn check(name: &str, value: &str) -> Result<()> {
    let wrong = |text: String| Err(Error::bad_request(format!("Validation failed; {text}")));
    let Some((_, form)) = KNOWN.iter().find(|(known, _)| known.is_match(name)) else {
        let space = name.split_once(':').map(|(space, _)| space);
        let ours = space.is_some_and(|s| regex::Regex::new(NAMESPACES).is_ok_and(|n| n.is_match(s)));
        return if ours { wrong(format!("extra spec '{name}' does not appear to be a valid extra spec.")) } else { Ok(()) };
    };
    match form {
        Bool => match value.trim().to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" | "0" | "f" | "false" | "off" | "n" | "no" => Ok(()),
            _ => wrong(format!("'{value}' is not a valid boolean-like value.")),
        },
        Int(min, max) => match value.trim().parse::<i64>() {
            Err(_) => wrong(format!("'{value}' is not a valid integer value.")),
            Ok(n) if n > *max => wrong(format!("'{n}' is greater than the max value of '{max}'.")),
            Ok(n) if n < *min => wrong(format!("'{n}' is less than the min value of '{min}'.")),
            Ok(_) => Ok(()),
        },
        Choice(words) if words.split(' ').any(|w| w == value) => Ok(()),
        Choice(words) => wrong(format!("'{value}' is not one of: {}.", words.replace(' ', ", "))),
        Text(pattern) => match regex::Regex::new(&format!("^(?:{pattern})$")) {
            Ok(r) if !r.is_match(value) => wrong(format!("'{value}' is not of the format '{pattern}'.")),
            _ => Ok(()),
        },
    }
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let reader = |name| Access::Rule(name, "reader");
    let (all, one) = ("/v2.1/flavors/{id}/os-extra_specs", "/v2.1/flavors/{id}/os-extra_specs/{key}");
    vec![
        Route::new("GET", all, reader("os_compute_api:os-flavor-extra-specs:index"), list),
        Route::new("POST", all, admin("os_compute_api:os-flavor-extra-specs:create"), create),
        Route::new("GET", one, reader("os_compute_api:os-flavor-extra-specs:show"), show),
        Route::new("PUT", one, admin("os_compute_api:os-flavor-extra-specs:update"), update),
        Route::new("DELETE", one, admin("os_compute_api:os-flavor-extra-specs:delete"), delete),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_are_sound() {
        assert_eq!(KNOWN.len(), 41);
        assert!(KNOWN.iter().all(|(_, f)| !matches!(f, Text(p) if regex::Regex::new(p).is_err())));
        assert!(regex::Regex::new(NAMESPACES).is_ok());
    }

    #[test]
    fn known_names_have_checked_values_and_free_ones_have_not() {
        for (name, value) in [
            ("hw:cpu_policy", "dedicated"),
            ("hw:numa_nodes", "2"),
            ("hw:mem_page_size", "1GB"),
            ("resources:CUSTOM_GOLD", "1"),
            ("resources1:VCPU", "0"),
            ("trait:HW_CPU_X86_AVX", "required"),
            ("quota:disk_read_bytes_sec", "1024"),
            ("key1", "anything"),
            ("my:own", "anything"),
        ] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
        for (name, value) in [
            ("hw:cpu_policy", "sharrred"),
            ("hw:cpu_policyyyyyyy", "shared"),
            ("hw:numa_nodes", "0"),
            ("hw:numa_nodes", "foo"),
            ("hw:boot_menu", "maybe"),
            ("trait:CUSTOM_X", "wanted"),
            ("hw:redirected_usb_ports", "16"),
        ] {
            assert!(check(name, value).is_err(), "{name}={value}");
        }
    }
}
