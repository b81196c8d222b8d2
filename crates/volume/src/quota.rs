//! What projects may have and have: counted in the transaction that uses it, so it is exact.
//!
//! Volumes and GiB are counted in all and for each type; snapshots take the GiB of their volumes. Limits of a project come before those
//! of the class `default`, and those before the built-in ones. Limits for a type exist only where an administrator sets them. Rows
//! name a type by its id, so that it may be renamed.
use crate::resources::VolumeType;
use api::{Cx, Error, Result};
use resource::{Reader, Resource as _, Tx, engine};
use serde_json::Value;

/// Name and default of each quota.
pub(crate) const QUOTAS: [(&str, i64); 7] = [
    ("volumes", 10),
    ("snapshots", 10),
    ("gigabytes", 1000),
    ("per_volume_gigabytes", -1),
    ("backups", 10),
    ("backup_gigabytes", 1000),
    ("groups", 10),
];
/// What is also counted for each type, as `volumes_<id of the type>`.
pub(crate) const BY_TYPE: [&str; 3] = ["volumes", "gigabytes", "snapshots"];
/// Limits of the class `default`.
pub(crate) const CLASS_ROW: &str = "class default:volume";

/// Names and amounts.
pub(crate) type Deltas = Vec<(String, i64)>;

fn amounts(kind: &str, of: &[(&str, i64)]) -> Deltas {
    let all = of.iter().map(|(n, a)| ((*n).to_owned(), *a));
    let typed = of.iter().filter(|_| !kind.is_empty()).map(|(n, a)| (format!("{n}_{kind}"), *a));
    all.chain(typed).collect()
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// What a volume of a type takes.
pub(crate) fn volume(kind: &str, size: u64) -> Deltas {
    amounts(kind, &[("volumes", 1), ("gigabytes", signed(size))])
}

/// What growth takes.
pub(crate) fn growth(kind: &str, more: u64) -> Deltas {
    amounts(kind, &[("gigabytes", signed(more))])
}

/// What a snapshot takes.
pub(crate) fn snapshot(kind: &str, size: u64) -> Deltas {
    amounts(kind, &[("snapshots", 1), ("gigabytes", signed(size))])
}

/// The limit of a project; -1 is unlimited.
pub(crate) fn limit(tx: &mut Tx<'_>, cx: &Cx, project: &str, name: &str) -> i64 {
    let mut of = |row: &str| tx.get(&engine::LIMITS, row).and_then(|r| r.field("limits").get(name).and_then(Value::as_i64));
    let own = of(&format!("{project}:volume"));
    own.or_else(|| of(CLASS_ROW)).unwrap_or_else(|| cx.settings.quota("volume", name))
}

/// As [`limit`], for readers.
pub(crate) fn limit_of(reader: &Reader<'_>, cx: &Cx, project: &str, name: &str) -> i64 {
    let of = |row: &str| reader.get(&engine::LIMITS, row).and_then(|r| r.field("limits").get(name).and_then(Value::as_i64));
    of(&format!("{project}:volume")).or_else(|| of(CLASS_ROW)).unwrap_or_else(|| cx.settings.quota("volume", name))
}

pub(crate) fn used_of(reader: &Reader<'_>, project: &str, name: &str) -> i64 {
    reader.get(&engine::USAGE, &format!("{project}:volume:{name}")).and_then(|r| r.field("used").as_i64()).unwrap_or(0)
}

/// Counts use up, or fails with 413 beyond a limit.
pub(crate) fn charge(tx: &mut Tx<'_>, cx: &Cx, project: &str, deltas: &Deltas) -> Result<()> {
    for (name, delta) in deltas.iter().filter(|(_, d)| *d > 0) {
        let limit = limit(tx, cx, project, name);
        let used = engine::usage(tx, project, "volume", name);
        if limit >= 0 && used.saturating_add(*delta) > limit {
            return Err(exceeded(&shown(tx, name), *delta, used, limit));
        }
    }
    let minus: Vec<(&str, i64)> = deltas.iter().map(|(n, d)| (n.as_str(), -d)).collect();
    engine::release(tx, project, "volume", &minus);
    Ok(())
}

/// Gives use back.
pub(crate) fn release(tx: &mut Tx<'_>, project: &str, deltas: &Deltas) {
    let plus: Vec<(&str, i64)> = deltas.iter().map(|(n, d)| (n.as_str(), *d)).collect();
    engine::release(tx, project, "volume", &plus);
}

/// The name as users know it: with a type's name for its id.
fn shown(tx: &mut Tx<'_>, name: &str) -> String {
    let Some((quota, id)) = name.split_once('_').filter(|(q, _)| BY_TYPE.contains(q)) else { return name.to_owned() };
    tx.get(&VolumeType::DEF.table, id).map_or_else(|| name.to_owned(), |kind| format!("{quota}_{}", kind.text("name")))
}

fn exceeded(name: &str, delta: i64, used: i64, limit: i64) -> Error {
    Error::over_quota(match name.split('_').next() {
        Some("gigabytes") => format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {name} quota. Requested {delta}G, quota is {limit}G and {used}G has been consumed."
        ),
        Some("snapshots") => {
            format!("SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded for quota '{name}'.")
        }
        Some("groups") => format!("GroupLimitExceeded: Maximum number of groups allowed ({limit}) exceeded."),
        _ => format!("VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'."),
    })
}

/// One volume may have a limit of its own.
pub(crate) fn check_size(tx: &mut Tx<'_>, cx: &Cx, project: &str, size: u64) -> Result<()> {
    let limit = limit(tx, cx, project, "per_volume_gigabytes");
    if limit >= 0 && signed(size) > limit {
        return Err(Error::over_quota(format!(
            "VolumeSizeExceedsLimit: Requested volume size {size}G is larger than maximum allowed limit {limit}G."
        )));
    }
    Ok(())
}
