//! How much of this service a project may use, by the unified limits of the identity service: registered limits of the service `image`, and
//! what differs from them for a project. Where there are none, nothing is limited.
//!
//! As in Glance, a quota of bytes is checked before they come, so the last image may go beyond it when its size was not announced.
use crate::{
    image::{Image, places},
    transfer::COPY,
};
use resource::{Cx, Error, Result, Tx, engine};
use store::Row;

pub(crate) const SIZE: &str = "image_size_total";
pub(crate) const STAGED: &str = "image_stage_total";
pub(crate) const COUNT: &str = "image_count_total";
pub(crate) const UPLOADING: &str = "image_count_uploading";
pub(crate) const ALL: [&str; 4] = [SIZE, STAGED, COUNT, UPLOADING];

/// A MiB: what quotas of bytes are counted in.
const MIB: u64 = 1 << 20;

/// -1 is no limit.
pub(crate) fn limit(tx: &mut Tx<'_>, cx: &Cx, project: &str, name: &str) -> i64 {
    unified(tx, cx, project, name).unwrap_or_else(|| engine::limit(tx, cx, project, "image", name))
}

fn unified(tx: &mut Tx<'_>, cx: &Cx, project: &str, name: &str) -> Option<i64> {
    let table = |name: &str| cx.registry.get(name).ok().map(|def| &def.table);
    let (services, registered, limits) =
        (table("identity/services")?, table("identity/registered_limits")?, table("identity/limits")?);
    let service = tx.all(services).into_iter().find(|row| row.text("type") == "image")?;
    // What is said of this region goes before what is said of all.
    let here = |rows: Vec<std::sync::Arc<Row>>, field: &str, fits: &dyn Fn(&Row) -> bool| {
        let rank = |row: &Row| match row.field("region_id").as_str() {
            Some(region) => (region == cx.settings.region).then_some(1),
            None => Some(0),
        };
        let fitting = rows.into_iter().filter(|row| row.text("resource_name") == name && fits(row));
        let best = fitting.filter_map(|row| Some((rank(&row)?, row))).max_by_key(|(rank, _)| *rank);
        best.and_then(|(_, row)| row.field(field).as_i64())
    };
    let default = here(tx.find(registered, "service_id", service.id()), "default_limit", &|_| true)?;
    let own = here(tx.find(limits, "service_id", service.id()), "resource_limit", &|row| row.text("project_id") == project);
    Some(own.unwrap_or(default))
}

/// What a project uses of each quota.
pub(crate) fn used(tx: &mut Tx<'_>, project: &str) -> Result<[(&'static str, u64); 4]> {
    let images = resource::find::<Image>(tx, "project_id", project)?;
    let copies = |image: &resource::Object<Image>| places(&image.map).len() as u64;
    let size: u64 = images.iter().map(|image| image.size.unwrap_or(0).saturating_mul(copies(image))).sum();
    let copied = |image: &&resource::Object<Image>| image.import.as_ref().is_some_and(|import| import.method == COPY);
    let staged: u64 = images.iter().filter_map(|image| image.staged.as_ref().map(|s| s.size)).sum();
    let staged = staged + images.iter().filter(copied).filter_map(|image| image.size).sum::<u64>();
    let busy = |image: &&resource::Object<Image>| {
        image.import.is_some() || matches!(image.status.as_str(), "saving" | "uploading" | "importing")
    };
    let uploading = images.iter().filter(busy).count() as u64;
    Ok([(SIZE, size / MIB), (STAGED, staged / MIB), (COUNT, images.len() as u64), (UPLOADING, uploading)])
}

/// Refuses so much more than a project uses, when that is beyond its limit.
pub(crate) fn check(tx: &mut Tx<'_>, cx: &Cx, project: &str, deltas: &[(&'static str, u64)]) -> Result<()> {
    let limits: Vec<_> = deltas.iter().map(|(name, delta)| (*name, *delta, limit(tx, cx, project, name))).collect();
    if limits.iter().all(|(_, _, limit)| *limit < 0) {
        return Ok(());
    }
    let used = used(tx, project)?;
    for (name, delta, limit) in limits {
        let usage = used.iter().find(|(of, _)| *of == name).map_or(0, |(_, usage)| *usage);
        if limit >= 0 && usage.saturating_add(delta) > limit.unsigned_abs() {
            return Err(Error::too_large(format!(
                "Project {project} is over a limit for [Resource {name} is over limit of {limit} due to current usage {usage} and delta {delta}]"
            )));
        }
    }
    Ok(())
}

/// Bytes in the unit of quotas.
pub(crate) fn mib(bytes: u64) -> u64 {
    bytes / MIB
}
