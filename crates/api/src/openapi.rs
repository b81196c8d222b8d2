//! OpenAPI 3.1 from the tables: what the engine accepts and shows is what the document says.
use crate::{Access, Route, Service, crud};
use resource::{FieldDef, Kind, ResourceDef};
use serde_json::{Map, Value, json};

fn schema(kind: &Kind) -> Value {
    match kind {
        Kind::Bool | Kind::StrictBool => json!({"type": "boolean"}),
        Kind::Int { min, max } => {
            let mut s = json!({"type": "integer"});
            if *min != i64::MIN {
                s["minimum"] = (*min).into();
            }
            if *max != i64::MAX {
                s["maximum"] = (*max).into();
            }
            s
        }
        Kind::Number => json!({"type": "number"}),
        Kind::Text { min, max } => json!({"type": "string", "minLength": min, "maxLength": max}),
        Kind::Choice(set) => json!({"type": "string", "enum": set}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Ip => json!({"type": "string", "format": "ip"}),
        Kind::Cidr => json!({"type": "string", "format": "cidr"}),
        Kind::Mac => json!({"type": "string", "format": "mac"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::List(k) => json!({"type": "array", "items": schema(k)}),
        Kind::TextMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Object => json!({"type": "object"}),
        Kind::Any => json!({}),
        Kind::Optional(k) => json!({"anyOf": [schema(k), {"type": "null"}]}),
    }
}

fn object<'a>(def: &ResourceDef, fields: impl Iterator<Item = &'a FieldDef> + Clone) -> Value {
    let properties: Map<String, Value> = fields
        .clone()
        .map(|f| {
            let mut s = schema(&f.kind);
            if !f.help.is_empty() {
                s["description"] = f.help.into();
            }
            if f.since > base::Version::MIN {
                s["x-since"] = f.since.to_string().into();
            }
            (f.name.to_owned(), s)
        })
        .collect();
    let required: Vec<&str> = fields.filter(|f| f.required).map(|f| f.name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": def.extras})
}

fn wrap(wrapped: bool, name: &str, inner: Value) -> Value {
    if wrapped { json!({"type": "object", "properties": {name: inner}, "required": [name]}) } else { inner }
}

fn parameters(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect()
}

fn operation(service: &Service, route: &Route, def: Option<&ResourceDef>) -> Value {
    let mut op = json!({
        "parameters": parameters(route.path),
        "responses": {"default": {"description": "The answer, or an error in the service's shape"}},
    });
    match route.access {
        Access::Public => op["security"] = json!([]),
        Access::Authenticated => {}
        Access::Rule(name, _) => op["x-policy"] = name.into(),
    }
    if route.since > base::Version::MIN {
        op["x-since"] = route.since.to_string().into();
    }
    let Some(def) = def else { return op };
    let (wrapped, item) = (service.dialect.wrapped, route.path.ends_with("/{id}"));
    let body =
        |fields: Value| json!({"required": true, "content": {"application/json": {"schema": wrap(wrapped, def.name, fields)}}});
    match (route.method, item) {
        ("POST", false) => op["requestBody"] = body(object(def, def.fields.iter().filter(|f| f.create))),
        ("PUT" | "PATCH", true) => op["requestBody"] = body(object(def, def.fields.iter().filter(|f| f.update))),
        ("GET", false) => {
            let filters =
                def.fields.iter().filter(|f| f.filter).map(|f| json!({"name": f.name, "in": "query", "schema": schema(&f.kind)}));
            if let Some(list) = op["parameters"].as_array_mut() {
                list.extend(filters);
            }
        }
        _ => {}
    }
    op["tags"] = json!([def.plural]);
    op
}

/// The document of one service.
pub fn openapi(service: &Service, endpoint: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut put = |route: &Route, def: Option<&ResourceDef>| {
        let at = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        let method = route.method.to_ascii_lowercase();
        // A route of the service wins over the table's; it is put first.
        if at.get(&method).is_none() {
            at[method] = operation(service, route, def);
        }
    };
    for route in &service.routes {
        let def = service.resources.iter().find(|d| d.path == route.path || format!("{}/{{id}}", d.path) == route.path);
        put(route, def.copied());
    }
    let mut schemas = Map::new();
    for def in &service.resources {
        for route in crud::resource_routes(def, service.dialect) {
            put(&route, Some(def));
        }
        let mut shown = object(def, def.fields.iter().filter(|f| !f.hidden));
        shown["description"] = def.help.into();
        shown["required"] = json!([]);
        schemas.insert(def.name.to_owned(), shown);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": format!("Drover {}", service.name), "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": format!("{endpoint}{}", service.prefix)}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}},
    })
}
