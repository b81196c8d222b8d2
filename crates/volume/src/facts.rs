//! What clients ask about the service itself: zones, extensions, and which filters lists know.
use crate::hosts::{self, ZONE};
use api::{Access, Call, Reply, Result, Route};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("GET", "/v3/os-availability-zone", any, |call| async move { zones(&call) }),
        Route::new("GET", "/v3/extensions", any, |_| async move { extensions() }),
        Route::new("GET", "/v3/resource_filters", any, |call| async move { filters(&call) }).since("3.33"),
    ]
}

fn zones(call: &Call) -> Result<Reply> {
    let hosts = hosts::all(&call.reader());
    let available = hosts.iter().any(|h| !h.disabled) || hosts.is_empty();
    Ok(Reply::ok(json!({ "availabilityZoneInfo": [{ "zoneName": ZONE, "zoneState": { "available": available } }] })))
}

/// Alias, name and what it adds.
const EXTENSIONS: [(&str, &str, &str); 24] = [
    ("OS-SCH-HNT", "SchedulerHints", "Pass arbitrary key/value pairs to the scheduler."),
    ("os-admin-actions", "AdminActions", "Enable admin actions."),
    ("os-availability-zone", "AvailabilityZones", "Describe Availability Zones."),
    ("capabilities", "Capabilities", "Capabilities support."),
    ("encryption", "VolumeTypeEncryption", "Encryption support for volume types."),
    ("os-extended-services", "ExtendedServices", "Extended services support."),
    ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes", "Extended SnapshotAttributes support."),
    ("os-hosts", "Hosts", "Admin-only host administration."),
    ("os-quota-class-sets", "QuotaClasses", "Quota classes management support."),
    ("os-quota-sets", "Quotas", "Quota management support."),
    ("qos-specs", "Qos_specs_manage", "QoS specs support."),
    ("scheduler-stats", "Scheduler_stats", "Scheduler stats support."),
    ("os-services", "Services", "Services support."),
    ("os-snapshot-actions", "SnapshotActions", "Enable snapshot manager actions."),
    ("os-types-extra-specs", "TypesExtraSpecs", "Type extra specs support."),
    ("os-types-manage", "TypesManage", "Types manage support."),
    ("os-used-limits", "UsedLimits", "Provide data on limited resource usage."),
    ("os-volume-actions", "VolumeActions", "Enable volume actions."),
    ("os-volume-encryption-metadata", "VolumeEncryptionMetadata", "Volume encryption metadata retrieval support."),
    ("os-vol-host-attr", "VolumeHostAttribute", "Expose host as an attribute of a volume."),
    ("os-vol-image-meta", "VolumeImageMetadata", "Show image metadata associated with the volume."),
    ("os-vol-tenant-attr", "VolumeTenantAttribute", "Expose the internal project_id as an attribute of a volume."),
    ("os-volume-transfer", "VolumeTransfer", "Volume transfer management support."),
    ("os-volume-type-access", "VolumeTypeAccess", "Volume type access support."),
];

fn extensions() -> Result<Reply> {
    let one = |(alias, name, description): &(&str, &str, &str)| -> Value {
        json!({ "alias": alias, "name": name, "description": description, "updated": "2013-07-10T00:00:00+00:00", "links": [] })
    };
    Ok(Reply::ok(json!({ "extensions": EXTENSIONS.iter().map(one).collect::<Vec<_>>() })))
}

/// Lists and the filters that users may give.
const FILTERS: [(&str, &[&str]); 8] = [
    (
        "volume",
        &[
            "name",
            "status",
            "metadata",
            "bootable",
            "migration_status",
            "availability_zone",
            "group_id",
            "size",
            "created_at",
            "updated_at",
        ],
    ),
    ("backup", &[]),
    ("snapshot", &["name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota", "created_at", "updated_at"]),
    ("group", &[]),
    ("group_snapshot", &["status", "group_id"]),
    ("attachment", &["volume_id", "status", "instance_id", "attach_status"]),
    ("message", &["resource_uuid", "resource_type", "event_id", "request_id", "message_level"]),
    ("volume_type", &["is_public", "extra_specs"]),
];

fn filters(call: &Call) -> Result<Reply> {
    let wanted = call.cx.query.get("resource");
    let list: Vec<Value> = FILTERS
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|w| w == *name))
        .map(|(name, filters)| json!({ "resource": name, "filters": filters }))
        .collect();
    Ok(Reply::ok(json!({ "resource_filters": list })))
}
