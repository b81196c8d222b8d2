//! The layers of the workspace as data, and the check of a dependency graph against them.
//!
//! What a crate may use is listed by name; a crate that is not listed fails, so that a new one gets its place on purpose.
//! Development dependencies may point anywhere, but a service never sees another service, not even in its tests: services
//! meet through rows.

use std::fmt;

use serde_json::Value;

/// The crates that serve one API each.
const SERVICES: &[&str] = &["identity", "image", "compute", "placement", "network", "volume"];

/// What no service may use: the HTTP edge and the engines are other layers' work.
const BANNED_IN_SERVICES: &[&str] = &["axum", "hyper", "hyper-util", "rusqlite"];

/// What every service may use.
const SERVICE_USES: &[&str] = &["base", "store", "resource", "resource-derive", "auth", "api", "reconcile", "assign"];

/// What a crate may use of this workspace.
enum Layer {
    Only(&'static [&'static str]),
    Service(&'static [&'static str]),
    AnythingBut(&'static str),
    Anything,
}

fn layer(name: &str) -> Option<Layer> {
    Some(match name {
        "base" | "pki" | "resource-derive" | "xtask" => Layer::Only(&[]),
        "supervise" | "ovsdb" | "assign" | "store" | "cli" => Layer::Only(&["base"]),
        "store-sqlite" => Layer::Only(&["base", "store"]),
        "store-etcd" => Layer::Only(&["base", "store", "supervise"]),
        "link" => Layer::Only(&["base", "pki", "assign"]),
        "auth" | "web" => Layer::Only(&["base"]),
        "resource" => Layer::Only(&["base", "resource-derive", "store", "auth"]),
        "reconcile" => Layer::Only(&["base", "store", "resource"]),
        "frontdoor" | "lab" => Layer::Only(&["base", "supervise"]),
        "operator" => Layer::Only(&["base", "pki", "store", "resource", "api", "reconcile"]),
        "api" => Layer::Only(&["base", "store", "resource", "auth"]),
        "chassis" => Layer::Only(&["base", "ovsdb", "supervise"]),
        "node" => Layer::Only(&["base", "assign", "chassis", "ovsdb", "supervise"]),
        "network" => Layer::Service(&["ovsdb", "supervise"]),
        "identity" | "image" => Layer::Service(&["web"]),
        "compute" | "placement" | "volume" => Layer::Service(&[]),
        "bench" => Layer::Only(&["base", "pki", "store", "store-sqlite", "assign", "link", "node"]),
        "testkit" => Layer::AnythingBut("drover"),
        "drover" => Layer::Anything,
        _ => return None,
    })
}

/// One crate of the workspace with what it names in its manifest.
#[derive(Debug)]
pub(crate) struct Crate {
    name: String,
    uses: Vec<Use>,
}

#[derive(Debug)]
struct Use {
    name: String,
    internal: bool,
    development: bool,
}

/// An arrow that must go, or a crate without a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    Unplaced { krate: String },
    Forbidden { krate: String, uses: String },
    Banned { krate: String, uses: String },
    ServiceUsesService { krate: String, uses: String },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced { krate } => write!(f, "{krate} has no layer; give it one in xtask/src/deps.rs."),
            Self::Forbidden { krate, uses } => {
                write!(f, "{krate} must not use {uses}, which is not below it; move what it needs to a lower crate.")
            }
            Self::Banned { krate, uses } => write!(f, "{krate} is a service and must not use {uses}; go through api or store."),
            Self::ServiceUsesService { krate, uses } => {
                write!(f, "{krate} must not use the service {uses}; let them meet through rows.")
            }
        }
    }
}

/// Reads the workspace's crates from the JSON of `cargo metadata --no-deps`.
pub(crate) fn read(metadata: &Value) -> Result<Vec<Crate>, String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages; is this the workspace?")?;
    packages.iter().map(read_crate).collect()
}

fn read_crate(package: &Value) -> Result<Crate, String> {
    let name = text(package, "name")?;
    let dependencies =
        package["dependencies"].as_array().ok_or_else(|| format!("cargo metadata lists no dependencies of {name}"))?;
    let uses = dependencies
        .iter()
        .map(|dependency| {
            Ok(Use {
                name: text(dependency, "name")?,
                internal: dependency["path"].is_string(),
                development: dependency["kind"] == "dev",
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Crate { name, uses })
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("cargo metadata lacks the text field {field}"))
}

/// Compares each arrow with the layers; an empty answer is a clean workspace.
pub(crate) fn check(crates: &[Crate]) -> Vec<Violation> {
    crates.iter().flat_map(check_crate).collect()
}

fn check_crate(krate: &Crate) -> Vec<Violation> {
    let Some(layer) = layer(&krate.name) else {
        return vec![Violation::Unplaced { krate: krate.name.clone() }];
    };
    krate.uses.iter().filter_map(|used| check_use(&krate.name, &layer, used)).collect()
}

fn check_use(krate: &str, layer: &Layer, used: &Use) -> Option<Violation> {
    let name = used.name.as_str();
    let (krate, uses) = (krate.to_owned(), used.name.clone());
    let is_service = matches!(layer, Layer::Service(_));
    // A crate may name itself among its development dependencies to switch a feature on.
    if is_service && SERVICES.contains(&name) && krate != name {
        return Some(Violation::ServiceUsesService { krate, uses });
    }
    if used.development {
        return None;
    }
    if !used.internal {
        return (is_service && BANNED_IN_SERVICES.contains(&name)).then_some(Violation::Banned { krate, uses });
    }
    let allowed = match layer {
        Layer::Only(names) => names.contains(&name),
        Layer::Service(more) => SERVICE_USES.contains(&name) || more.contains(&name),
        Layer::AnythingBut(above) => name != *above,
        Layer::Anything => true,
    };
    (!allowed).then_some(Violation::Forbidden { krate, uses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dependency(name: &str, kind: Option<&str>, internal: bool) -> Value {
        if internal {
            json!({"name": name, "kind": kind, "path": format!("crates/{name}")})
        } else {
            json!({"name": name, "kind": kind})
        }
    }

    fn violations(name: &str, dependencies: Vec<Value>) -> Vec<Violation> {
        let metadata = json!({"packages": [{"name": name, "dependencies": dependencies}]});
        check(&read(&metadata).unwrap())
    }

    #[test]
    fn arrows_that_point_down_are_right() {
        assert_eq!(violations("resource", vec![dependency("base", None, true), dependency("store", None, true)]), []);
        assert_eq!(violations("network", vec![dependency("ovsdb", None, true), dependency("api", None, true)]), []);
        assert_eq!(violations("drover", vec![dependency("compute", None, true), dependency("axum", None, false)]), []);
        assert_eq!(violations("testkit", vec![dependency("compute", None, true)]), []);
    }

    #[test]
    fn an_arrow_that_points_up_is_forbidden() {
        let expected = |krate: &str, uses: &str| Violation::Forbidden { krate: krate.into(), uses: uses.into() };
        assert_eq!(violations("base", vec![dependency("store", None, true)]), [expected("base", "store")]);
        assert_eq!(violations("compute", vec![dependency("ovsdb", None, true)]), [expected("compute", "ovsdb")]);
        assert_eq!(violations("node", vec![dependency("store", None, true)]), [expected("node", "store")]);
        assert_eq!(violations("testkit", vec![dependency("drover", None, true)]), [expected("testkit", "drover")]);
    }

    #[test]
    fn build_dependencies_are_checked_and_development_ones_are_not() {
        assert_eq!(violations("base", vec![dependency("store", Some("build"), true)]).len(), 1);
        assert_eq!(violations("base", vec![dependency("testkit", Some("dev"), true)]), []);
        assert_eq!(violations("compute", vec![dependency("hyper", Some("dev"), false)]), []);
    }

    #[test]
    fn a_service_sees_no_service_even_in_tests() {
        for kind in [None, Some("dev")] {
            let found = violations("compute", vec![dependency("network", kind, true)]);
            assert_eq!(found, [Violation::ServiceUsesService { krate: "compute".into(), uses: "network".into() }]);
        }
        assert_eq!(violations("compute", vec![dependency("compute", Some("dev"), true)]), []);
    }

    #[test]
    fn a_service_does_not_reach_around_its_layers() {
        for name in ["axum", "hyper", "rusqlite"] {
            let found = violations("image", vec![dependency(name, None, false)]);
            assert_eq!(found, [Violation::Banned { krate: "image".into(), uses: name.into() }]);
        }
        assert_eq!(violations("api", vec![dependency("axum", None, false)]), []);
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        let found = violations("telemetry", vec![]);
        assert_eq!(found, [Violation::Unplaced { krate: "telemetry".into() }]);
        assert!(found[0].to_string().contains("xtask/src/deps.rs"));
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        assert!(read(&json!({})).is_err());
        assert!(read(&json!({"packages": [{"name": "base"}]})).is_err());
    }
}
