//! OpenAPI 3.1 from the tables: what the engine accepts and shows is what the document says.
use crate::{Access, BodyForm, Dialect, Route, Service, crud, idempotency, ticket};
use resource::{FieldDef, IdForm, Kind, Owner, ResourceDef};
use serde_json::{Map, Value, json};

/// A schema is of what is sent or of what is shown: many things may be sent in more than one form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Sent,
    Shown,
}

fn schema(kind: &Kind, side: Side) -> Value {
    match kind {
        Kind::Bool if side == Side::Sent => {
            // What `Kind::check` takes for one.
            let words = "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Oo][Nn]|[Oo][Ff][Ff]|[Yy][Ee][Ss]|[Nn][Oo]|[TtFfYyNn01])$";
            json!({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": words}, {"enum": [0, 1]}]})
        }
        Kind::Bool | Kind::StrictBool => json!({"type": "boolean"}),
        Kind::Int { min, max } => {
            let mut s = json!({"type": "integer"});
            if *min != i64::MIN {
                s["minimum"] = (*min).into();
            }
            if *max != i64::MAX {
                s["maximum"] = (*max).into();
            }
            match side {
                Side::Sent => json!({"anyOf": [s, {"type": "string", "pattern": "^\\s*[+-]?[0-9]{1,19}\\s*$"}]}),
                Side::Shown => s,
            }
        }
        Kind::Number => json!({"type": "number"}),
        Kind::Text { min, max } => json!({"type": "string", "minLength": min, "maxLength": max}),
        Kind::Name { max } => json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": "[\\S]"}),
        Kind::Choice(set) => json!({"type": "string", "enum": set}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Ip => json!({"type": "string", "format": "ip"}),
        Kind::Cidr => json!({"type": "string", "format": "cidr"}),
        Kind::Mac => json!({"type": "string", "format": "mac"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::List(k) => json!({"type": "array", "items": schema(k, side)}),
        Kind::TextMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Object => json!({"type": "object"}),
        Kind::Any => json!({}),
        Kind::Optional(k) => json!({"anyOf": [schema(k, side), {"type": "null"}]}),
    }
}

fn described(f: &FieldDef, mut schema: Value) -> (String, Value) {
    if !f.help.is_empty() {
        schema["description"] = f.help.into();
    }
    if f.since > base::Version::MIN {
        schema["x-since"] = f.since.to_string().into();
    }
    if f.until < base::Version::MAX {
        schema["x-until"] = f.until.to_string().into();
    }
    (f.name.to_owned(), schema)
}

/// What a create or an update takes.
fn input(def: &ResourceDef, creating: bool) -> Value {
    let fields: Vec<&FieldDef> = def.fields.iter().filter(|f| if creating { f.create } else { f.update }).collect();
    let mut properties: Map<String, Value> = fields.iter().map(|f| described(f, schema(&f.kind, Side::Sent))).collect();
    if creating && def.id == IdForm::Given {
        properties.insert("id".into(), json!({"type": "string", "minLength": 0, "maxLength": 255}));
    }
    if def.owner == Owner::Project {
        for name in ["project_id", "tenant_id"] {
            properties
                .entry(name)
                .or_insert_with(|| json!({"type": "string", "description": "Whose it is; administrators choose."}));
        }
    }
    let required: Vec<&str> = fields.iter().filter(|f| creating && f.required).map(|f| f.name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": def.extras})
}

/// What is shown of a row. Rules add to it, so further properties may come.
fn output(def: &ResourceDef) -> Value {
    // A field that a caller may not see, or that nothing has set yet, is absent or null.
    let shown = |f: &FieldDef| described(f, json!({"anyOf": [schema(&f.kind, Side::Shown), {"type": "null"}]}));
    let mut properties: Map<String, Value> = def.fields.iter().filter(|f| !f.hidden).map(shown).collect();
    properties.insert("id".into(), json!({"type": ["string", "integer"]}));
    json!({"type": "object", "description": def.help, "properties": properties})
}

/// The body of an error, as each service's clients read it, with its media type.
fn error(dialect: &Dialect) -> (Value, &'static str) {
    let text = || json!({"type": "string", "minLength": 1});
    let of = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    match dialect.name {
        "network" => {
            let inner = of(
                json!({"type": text(), "message": text(), "detail": {"type": "string"}}),
                json!(["type", "message", "detail"]),
            );
            (of(json!({ "NeutronError": inner }), json!(["NeutronError"])), "application/json")
        }
        "placement" => {
            let fields =
                json!({"status": {"type": "integer"}, "title": text(), "detail": text(), "code": text(), "request_id": text()});
            let one = of(fields, json!(["status", "title", "detail", "code", "request_id"]));
            (of(json!({"errors": {"type": "array", "items": one, "minItems": 1}}), json!(["errors"])), "application/json")
        }
        "compute" | "volume" => {
            let fault = of(json!({"code": {"type": "integer"}, "message": text()}), json!(["code", "message"]));
            let body = json!({"type": "object", "additionalProperties": fault, "minProperties": 1, "maxProperties": 1});
            let is_compute = dialect.name == "compute";
            (body, if is_compute { "application/json; charset=UTF-8" } else { "application/json" })
        }
        "image" => (json!({"type": "string"}), "text/html; charset=UTF-8"),
        _ => (keystone_error(), "application/json"),
    }
}

fn keystone_error() -> Value {
    let inner = json!({"type": "object", "required": ["code", "message"], "properties": {
        "code": {"type": "integer"}, "title": {"type": "string"}, "message": {"type": "string", "minLength": 1},
    }});
    json!({"type": "object", "properties": {"error": inner}, "required": ["error"]})
}

fn answer(description: &str, media: &str, schema: Value) -> Value {
    json!({"description": description, "content": {media: {"schema": schema}}})
}

/// Answers of every operation: what success looks like where a table says it, and errors.
fn responses(service: &Service, route: &Route, def: Option<&ResourceDef>) -> Value {
    let dialect = service.dialect;
    let (_, media) = error(dialect);
    let refused = |text: &str| answer(text, media, json!({"$ref": "#/components/schemas/Error"}));
    let mut out = json!({
        "401": answer("There is no valid token", "application/json", json!({"$ref": "#/components/schemas/Unauthorized"})),
        "4XX": refused("The request cannot be carried out; the text says what to do"),
        "501": refused("This cloud does not have it"),
        "503": refused("It cannot be carried out now; the same request may work later"),
    });
    let Some(def) = def else {
        out["2XX"] = json!({"description": "It was done, or will be"});
        out["3XX"] = json!({"description": "It is elsewhere, or there are several"});
        return out;
    };
    let one = || wrap(dialect.wrapped, def.name, json!({"$ref": format!("#/components/schemas/{}", def.name)}));
    let item = route.path.ends_with("/{id}");
    let created = route.created.unwrap_or(dialect.created);
    let (status, success) = match (route.method, item) {
        ("GET", false) => {
            let list = json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{}", def.name)}});
            (200, json!({"type": "object", "properties": {def.plural: list}, "required": [def.plural]}))
        }
        ("POST", false) if dialect.bulk => (created, json!({"anyOf": [one(), {"type": "object", "required": [def.plural]}]})),
        ("POST", false) => (created, one()),
        ("DELETE", _) => {
            out[dialect.deleted.to_string()] = json!({"description": "It is gone, or goes"});
            return out;
        }
        _ => (200, one()),
    };
    out[status.to_string()] = answer("It was done", "application/json", success);
    out
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

/// Headers that every service takes, for `components`: see [`crate::idempotency`] and [`crate::ticket`].
fn headers() -> Value {
    let header = |name: &str, description: String, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    let (key, wait) = (idempotency::LONGEST, ticket::LONGEST.as_secs());
    json!({
        "IdempotencyKey": header(
            "Idempotency-Key",
            format!("A string of 1 to {key} printable ASCII characters, best a new UUID. The request is carried out once, however often it is sent with it."),
            json!({"type": "string", "minLength": 1, "maxLength": key, "pattern": "^[!-~]+$"}),
        ),
        "Prefer": header(
            "Prefer",
            format!("`wait=SECONDS` (RFC 7240): what has not begun after so many is not done. At most {wait}, which is also the default."),
            json!({"type": "string", "pattern": "^wait=[1-9][0-9]?$"}),
        ),
    })
}

fn operation(service: &Service, route: &Route, def: Option<&ResourceDef>, by_table: bool) -> Value {
    let mut op = json!({
        "parameters": parameters(route.path),
        "responses": responses(service, route, def.filter(|_| by_table)),
    });
    if let (BodyForm::Json, Some(list)) = (route.body, op["parameters"].as_array_mut()) {
        list.push(json!({"$ref": "#/components/parameters/Prefer"}));
        if route.method == "POST" && route.access != Access::Public {
            list.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
        }
    }
    match route.access {
        // Who sends a token that is not valid is nobody here.
        Access::Public => op["security"] = json!([]),
        Access::Authenticated => {}
        Access::Rule(name, _) => op["x-policy"] = name.into(),
    }
    if route.since > base::Version::MIN {
        op["x-since"] = route.since.to_string().into();
    }
    if route.until < base::Version::MAX {
        op["x-until"] = route.until.to_string().into();
    }
    let writes = matches!(route.method, "POST" | "PUT" | "PATCH");
    if route.body == BodyForm::Stream && writes {
        op["requestBody"] = json!({"content": {"application/octet-stream": {"schema": {}}}});
    }
    let Some(def) = def else {
        if writes && route.body == BodyForm::Json {
            op["requestBody"] = json!({"content": {"application/json": {"schema": {}}}});
        }
        return op;
    };
    let (wrapped, item) = (service.dialect.wrapped, route.path.ends_with("/{id}"));
    let body =
        |fields: Value| json!({"required": true, "content": {"application/json": {"schema": wrap(wrapped, def.name, fields)}}});
    match (route.method, item) {
        // A handler of the service's own takes more than the table says, or takes it in another form.
        ("POST", false) if !by_table => {
            let mut fields = input(def, true);
            fields["additionalProperties"] = true.into();
            op["requestBody"] = body(fields);
        }
        ("POST" | "PUT" | "PATCH", _) if !by_table => {
            op["requestBody"] = json!({"content": {"application/json": {"schema": {}}}})
        }
        ("POST", false) => op["requestBody"] = body(input(def, true)),
        ("PUT" | "PATCH", true) => op["requestBody"] = body(input(def, false)),
        ("GET", false) => {
            // A filter is compared with what is shown; one that cannot be equal to anything finds nothing.
            let filters = def.fields.iter().filter(|f| f.filter);
            let filters = filters.map(|f| json!({"name": f.name, "in": "query", "schema": {"type": "string"}}));
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
    let mut put = |route: &Route, def: Option<&ResourceDef>, by_table: bool| {
        let at = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        let method = route.method.to_ascii_lowercase();
        // A route of the service wins over the table's; it is put first.
        if at.get(&method).is_none() {
            at[method] = operation(service, route, def, by_table);
        }
    };
    for route in &service.routes {
        let def = service.resources.iter().find(|d| d.path == route.path || format!("{}/{{id}}", d.path) == route.path);
        put(route, def.copied(), false);
    }
    let mut schemas = Map::new();
    for def in &service.resources {
        for route in crud::resource_routes(def, service.dialect) {
            put(&route, Some(def), true);
        }
        schemas.insert(def.name.to_owned(), output(def));
    }
    schemas.insert("Error".into(), error(service.dialect).0);
    schemas.insert("Unauthorized".into(), keystone_error());
    json!({
        "openapi": "3.1.0",
        "info": {"title": format!("Drover {}", service.name), "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": format!("{endpoint}{}", service.prefix)}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": headers(),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    })
}
