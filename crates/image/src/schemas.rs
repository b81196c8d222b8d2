//! JSON schemas of what this service shows; python-glanceclient builds its models from them.
use crate::image::{CONTAINERS, DISKS, STATUSES, VISIBILITIES};
use api::{Access, Call, Reply, Route};
use serde_json::{Value, json};

/// Attributes: name, JSON type (`?` allows null), whether only the service sets it, and what it is.
type Attributes = &'static [(&'static str, &'static str, bool, &'static str)];

const IMAGE: Attributes = &[
    ("id", "string", false, "An identifier for the image"),
    ("name", "string?", false, "Descriptive name for the image"),
    ("status", "string", true, "Status of the image"),
    ("visibility", "string", false, "Scope of image accessibility"),
    ("protected", "boolean", false, "If true, image will not be deletable."),
    ("os_hidden", "boolean", false, "If true, image will not appear in default image list response."),
    ("checksum", "string?", true, "md5 hash of image contents."),
    ("os_hash_algo", "string?", true, "Algorithm to calculate the os_hash_value"),
    ("os_hash_value", "string?", true, "Hexdigest of the image contents using the algorithm specified by the os_hash_algo"),
    ("owner", "string?", false, "Owner of the image"),
    ("size", "integer?", true, "Size of image file in bytes"),
    ("virtual_size", "integer?", true, "Virtual size of image in bytes"),
    ("container_format", "string?", false, "Format of the container"),
    ("disk_format", "string?", false, "Format of the disk"),
    ("created_at", "string", true, "Date and time of image registration"),
    ("updated_at", "string", true, "Date and time of the last image modification"),
    ("tags", "strings", false, "List of strings related to the image"),
    ("min_ram", "integer", false, "Amount of ram (in MB) required to boot image."),
    ("min_disk", "integer", false, "Amount of disk space (in GB) required to boot image."),
    ("self", "string", true, "An image self url"),
    ("file", "string", true, "An image file url"),
    ("stores", "string", true, "Store in which image data resides."),
    ("schema", "string", true, "An image schema url"),
    ("architecture", "string", false, "Operating system architecture"),
    ("os_distro", "string", false, "Common name of operating system distribution"),
    ("os_version", "string", false, "Operating system version as specified by the distributor."),
    ("instance_uuid", "string", false, "The server that the image is a snapshot of"),
    (
        "kernel_id",
        "string?",
        false,
        "ID of image stored in Glance that should be used as the kernel when booting an AMI-style image.",
    ),
    (
        "ramdisk_id",
        "string?",
        false,
        "ID of image stored in Glance that should be used as the ramdisk when booting an AMI-style image.",
    ),
];
const MEMBER: Attributes = &[
    ("member_id", "string", false, "An identifier for the image member (tenantId)"),
    ("image_id", "string", false, "An identifier for the image"),
    ("created_at", "string", false, "Date and time of image member creation"),
    ("updated_at", "string", false, "Date and time of last modification of image member"),
    ("status", "string", false, "The status of this image member"),
    ("schema", "string", true, ""),
];
const TASK: Attributes = &[
    ("id", "string", false, "An identifier for the task"),
    ("type", "string", false, "The type of task represented by this content"),
    ("status", "string", false, "The current status of this task"),
    ("input", "object?", false, "The parameters required by task, JSON blob"),
    ("result", "object?", false, "The result of current task, JSON blob"),
    ("owner", "string", false, "An identifier for the owner of this task"),
    ("message", "string", false, "Human-readable informative message only included when appropriate (usually on failure)"),
    ("image_id", "string", false, "Image associated with the task"),
    ("request_id", "string", false, "Human-readable informative request-id"),
    ("user_id", "string", false, "User associated with the task"),
    ("expires_at", "string", false, "Datetime when this resource would be subject to removal"),
    ("created_at", "string", false, "Datetime when this resource was created"),
    ("updated_at", "string", false, "Datetime when this resource was updated"),
    ("self", "string", true, ""),
    ("schema", "string", true, ""),
];
const NAMESPACE: Attributes = &[
    ("namespace", "string", false, "The unique namespace text."),
    ("display_name", "string", false, "The user friendly name for the namespace. Used by UI if available."),
    ("description", "string", false, "Provides a user friendly description of the namespace."),
    ("visibility", "string", false, "Scope of namespace accessibility."),
    ("protected", "boolean", false, "If true, namespace will not be deletable."),
    ("owner", "string", false, "Owner of the namespace."),
    ("created_at", "string", true, "Date and time of namespace creation"),
    ("updated_at", "string", true, "Date and time of the last namespace modification"),
    ("resource_type_associations", "objects", false, "Types of resources that it is for"),
    ("properties", "object", false, "Definitions of properties, by name"),
    ("objects", "objects", false, "Definitions of groups of properties"),
    ("tags", "objects", false, "Definitions of tags"),
    ("self", "string", true, ""),
    ("schema", "string", true, ""),
];
const OBJECT: Attributes = &[
    ("name", "string", false, ""),
    ("description", "string", false, ""),
    ("required", "strings", false, ""),
    ("properties", "object", false, ""),
    ("created_at", "string", true, "Date and time of object creation"),
    ("updated_at", "string", true, "Date and time of the last object modification"),
    ("self", "string", true, ""),
    ("schema", "string", true, ""),
];
const PROPERTY: Attributes = &[
    ("name", "string", false, ""),
    ("title", "string", false, ""),
    ("description", "string", false, ""),
    ("operators", "strings", false, ""),
    ("type", "string", false, ""),
    ("minimum", "number", false, ""),
    ("maximum", "number", false, ""),
    ("minLength", "integer", false, ""),
    ("maxLength", "integer", false, ""),
    ("pattern", "string", false, ""),
    ("enum", "array", false, ""),
    ("readonly", "boolean", false, ""),
    ("default", "object", false, ""),
    ("items", "object", false, ""),
    ("uniqueItems", "boolean", false, ""),
    ("minItems", "integer", false, ""),
    ("maxItems", "integer", false, ""),
    ("additionalItems", "boolean", false, ""),
];
const TAG: Attributes = &[
    ("name", "string", false, ""),
    ("created_at", "string", true, "Date and time of tag creation"),
    ("updated_at", "string", true, "Date and time of the last tag modification"),
];
const RESOURCE_TYPE: Attributes = &[
    ("name", "string", false, "Resource type names should be aligned with Heat resource types whenever possible."),
    ("prefix", "string", false, "Specifies the prefix to use for the given resource type."),
    ("properties_target", "string", false, "Some resource types allow more than one key / value pair per instance."),
    ("created_at", "string", true, "Date and time of resource type association"),
    ("updated_at", "string", true, "Date and time of the last resource type association modification"),
];

/// Path below `/v2/schemas`, singular and plural name, attributes, required ones, may it have others? A resource type is shown as
/// its association with a namespace.
type Schema = (&'static str, &'static str, &'static str, Attributes, &'static [&'static str], bool);
const SCHEMAS: [Schema; 8] = [
    ("", "image", "images", IMAGE, &[], true),
    ("", "member", "members", MEMBER, &[], false),
    ("", "task", "tasks", TASK, &[], false),
    ("metadefs/", "namespace", "namespaces", NAMESPACE, &["namespace"], false),
    ("metadefs/", "object", "objects", OBJECT, &["name"], false),
    ("metadefs/", "property", "properties", PROPERTY, &["type", "title"], false),
    ("metadefs/", "tag", "tags", TAG, &["name"], false),
    ("metadefs/", "resource_type", "resource_types", RESOURCE_TYPE, &["name"], false),
];

pub(crate) fn routes() -> Vec<Route> {
    let each = |kind: &'static str, at: &'static Schema, plural: bool| -> Route {
        let path: &'static str = Box::leak(format!("/v2/schemas/{}{kind}", at.0).into_boxed_str());
        Route::new("GET", path, Access::Authenticated, move |_: Call| async move {
            Ok::<_, resource::Error>(Reply::ok(schema(at, plural)))
        })
    };
    static ALL: [Schema; 8] = SCHEMAS;
    ALL.iter().flat_map(|s| [each(s.1, s, false), each(s.2, s, true)]).collect()
}

fn schema(at: &Schema, plural: bool) -> Value {
    let (_, name, names, ..) = at;
    if !plural {
        return single(at);
    }
    let names = shown_name(names);
    let each = |kind: &str, items: Value| {
        json!({
            "name": names,
            "properties": {
                names: {"type": kind, if kind == "object" { "additionalProperties" } else { "items" }: items},
                "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"},
            },
            "links": [
                {"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"},
            ],
        })
    };
    each(if *name == "property" { "object" } else { "array" }, single(at))
}

fn single((_, name, _, attributes, required, open): &Schema) -> Value {
    let mut properties = resource::Map::new();
    for (attribute, kind, read_only, help) in *attributes {
        let mut shown = resource::Map::new();
        match *kind {
            "strings" => {
                shown.insert("type".into(), "array".into());
                shown.insert("items".into(), json!({"type": "string", "maxLength": 255}));
            }
            "objects" => {
                shown.insert("type".into(), "array".into());
                shown.insert("items".into(), json!({"type": "object"}));
            }
            kind => {
                let plain = kind.trim_end_matches('?');
                shown.insert("type".into(), if plain == kind { json!(plain) } else { json!(["null", plain]) });
            }
        }
        if *read_only {
            shown.insert("readOnly".into(), true.into());
        }
        if !help.is_empty() {
            shown.insert("description".into(), (*help).into());
        }
        if let Some(set) = choices(name, attribute) {
            shown.insert("enum".into(), set);
        }
        if *name == "image"
            && matches!(*attribute, "architecture" | "os_distro" | "os_version" | "instance_uuid" | "kernel_id" | "ramdisk_id")
        {
            shown.insert("is_base".into(), false.into());
        }
        properties.insert((*attribute).into(), shown.into());
    }
    let mut out = json!({"name": shown_name(name), "properties": properties});
    let map = &mut out;
    if !required.is_empty() {
        map["required"] = json!(required);
    }
    if *open {
        map["additionalProperties"] = json!({"type": "string"});
        map["links"] = json!([{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}]);
    } else {
        map["additionalProperties"] = false.into();
    }
    out
}

fn shown_name(name: &str) -> &str {
    match name {
        "resource_type" => "resource_type_association",
        "resource_types" => "resource_type_associations",
        name => name,
    }
}

fn choices(name: &str, attribute: &str) -> Option<Value> {
    let or_null = |set: &[&str]| std::iter::once(Value::Null).chain(set.iter().map(|v| (*v).into())).collect::<Value>();
    match (name, attribute) {
        ("image", "status") => Some(json!(STATUSES)),
        ("image", "visibility") => Some(json!(VISIBILITIES)),
        ("image", "container_format") => Some(or_null(CONTAINERS)),
        ("image", "disk_format") => Some(or_null(DISKS)),
        ("member", "status") => Some(json!(["pending", "accepted", "rejected"])),
        ("task", "type") => Some(json!(["api_image_import", "location_import"])),
        ("task", "status") => Some(json!(["pending", "processing", "success", "failure"])),
        ("namespace", "visibility") => Some(json!(["public", "private"])),
        _ => None,
    }
}
