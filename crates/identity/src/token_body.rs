//! How a token and the catalog look on the wire.
use crate::{
    resources::{ENDPOINT, SERVICE, SERVICE_PROVIDER},
    rows::{LINKS, Rows, flag, text},
    standing::Standing,
};
use auth::{DomainRef, Scope, Token};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::Row;

fn named(domain: &DomainRef) -> Value {
    json!({"id": domain.id.as_str(), "name": domain.name})
}

/// `{"token": {...}}`
pub(crate) fn show(rows: &mut dyn Rows, token: &Token, standing: &Standing, with_catalog: bool) -> Value {
    let user = &standing.user;
    let mut out = Map::new();
    out.insert("methods".into(), json!(token.methods.names()));
    let password_expires_at = standing.user_row.field("password_expires_at").as_i64();
    let shown = password_expires_at.map(|t| base::Timestamp(t).micros());
    out.insert(
        "user".into(),
        json!({
            "domain": named(&user.domain), "id": user.id.as_str(), "name": user.name, "password_expires_at": shown,
        }),
    );
    if let Some(federation) = &token.federation
        && let Some(user) = out.get_mut("user").and_then(Value::as_object_mut)
    {
        user.shift_remove("password_expires_at");
        let groups: Value = federation.group_ids.iter().map(|id| json!({"id": id})).collect();
        let (idp, protocol) = (json!({"id": federation.idp_id}), json!({"id": federation.protocol_id}));
        user.insert("OS-FEDERATION".into(), json!({"groups": groups, "identity_provider": idp, "protocol": protocol}));
    }
    out.insert("audit_ids".into(), json!(token.audit_ids()));
    out.insert("expires_at".into(), token.expires_at.micros_z().into());
    out.insert("issued_at".into(), token.issued_at.micros_z().into());
    match &standing.scope {
        Scope::Unscoped => {}
        Scope::Project(p) => {
            out.insert("project".into(), json!({"domain": named(&p.domain), "id": p.id.as_str(), "name": p.name}));
            out.insert("is_domain".into(), false.into());
        }
        Scope::Domain(d) => {
            out.insert("domain".into(), named(d));
        }
        Scope::System => {
            out.insert("system".into(), json!({"all": true}));
        }
    }
    if standing.scope != Scope::Unscoped {
        let roles = standing.roles.iter().map(|r| json!({"id": r.id.as_str(), "name": r.name}));
        out.insert("roles".into(), roles.collect());
        if with_catalog {
            let project = standing.scope.project().map(|p| p.id.as_str());
            out.insert("catalog".into(), catalog(rows, project, user.id.as_str()).into());
        }
    }
    let elsewhere = rows.every(&SERVICE_PROVIDER.table);
    let elsewhere: Vec<Value> = elsewhere
        .iter()
        .filter(|r| flag(r, "enabled"))
        .map(|r| json!({"id": r.id(), "auth_url": r.text("auth_url"), "sp_url": r.text("sp_url")}))
        .collect();
    if !elsewhere.is_empty() {
        out.insert("service_providers".into(), elsewhere.into());
    }
    if let Some(trust) = &standing.trust {
        out.insert(
            "OS-TRUST:trust".into(),
            json!({
                "id": trust.id(), "impersonation": flag(trust, "impersonation"),
                "trustor_user": {"id": trust.text("trustor_user_id")}, "trustee_user": {"id": trust.text("trustee_user_id")},
            }),
        );
    }
    if let Some(access) = &standing.access_token {
        let shown = json!({"access_token_id": access.id(), "consumer_id": access.text("consumer_id")});
        out.insert("OS-OAUTH1".into(), shown);
    }
    if let Some(app) = &standing.app_credential {
        let mut shown = json!({"id": app.id(), "name": app.text("name"), "restricted": !flag(app, "unrestricted")});
        if app.field("access_rules").is_array() {
            shown["access_rules"] = app.field("access_rules").clone();
        }
        out.insert("application_credential".into(), shown);
    }
    json!({ "token": out })
}

/// Ids of the endpoints that a project was given, directly or by a group; `None` when it was given none and so sees all.
fn given(rows: &mut dyn Rows, project: &str) -> Option<Vec<String>> {
    let links = rows.rows(&LINKS, "right", project);
    let mut ids: Vec<String> = Vec::new();
    let mut any = false;
    for link in &links {
        match link.text("kind") {
            "endpoint_project" => ids.push(link.text("left").to_owned()),
            "endpoint_group_project" => ids.extend(in_group(rows, link.text("left")).iter().map(|e| e.id().to_owned())),
            _ => continue,
        }
        any = true;
    }
    any.then_some(ids)
}

/// Endpoints that a group's filters choose.
pub(crate) fn in_group(rows: &mut dyn Rows, group: &str) -> Vec<Arc<Row>> {
    let Some(group) = rows.row(&crate::resources::ENDPOINT_GROUP.table, group) else { return Vec::new() };
    let Some(filters) = group.field("filters").as_object() else { return Vec::new() };
    let fits = |e: &Arc<Row>| filters.iter().all(|(k, v)| e.field(k) == v);
    rows.every(&ENDPOINT.table).into_iter().filter(fits).collect()
}

/// What is served where, for a project or for none.
pub(crate) fn catalog(rows: &mut dyn Rows, project: Option<&str>, user: &str) -> Vec<Value> {
    let given = project.and_then(|p| given(rows, p));
    let endpoints: Vec<Arc<Row>> = rows
        .every(&ENDPOINT.table)
        .into_iter()
        .filter(|e| flag(e, "enabled") && given.as_ref().is_none_or(|ids| ids.iter().any(|id| id == e.id())))
        .collect();
    let mut out = Vec::new();
    for service in rows.every(&SERVICE.table).iter().filter(|s| flag(s, "enabled")) {
        let shown: Vec<Value> = endpoints
            .iter()
            .filter(|e| e.text("service_id") == service.id())
            .filter_map(|e| {
                let region = text(e, "region_id");
                let url = fill(e.text("url"), project, user)?;
                Some(json!({"id": e.id(), "interface": e.text("interface"), "region_id": region, "url": url, "region": region}))
            })
            .collect();
        out.push(json!({"endpoints": shown, "type": service.text("type"), "id": service.id(), "name": service.text("name")}));
    }
    out
}

/// Fills `$(project_id)s` and `%(project_id)s`. A URL that needs a project is not for those who have none.
fn fill(url: &str, project: Option<&str>, user: &str) -> Option<String> {
    if !url.contains("(") {
        return Some(url.to_owned());
    }
    let mut out = url.to_owned();
    for sign in ["$", "%"] {
        for name in ["project_id", "tenant_id"] {
            let place = format!("{sign}({name})s");
            if out.contains(&place) {
                out = out.replace(&place, project?);
            }
        }
        out = out.replace(&format!("{sign}(user_id)s"), user);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_filled() {
        assert_eq!(fill("http://h/v1/$(project_id)s", Some("p"), "u").as_deref(), Some("http://h/v1/p"));
        assert_eq!(fill("http://h/%(tenant_id)s/%(user_id)s", Some("p"), "u").as_deref(), Some("http://h/p/u"));
        assert_eq!(fill("http://h/v1/$(project_id)s", None, "u"), None);
        assert_eq!(fill("http://h/v3", None, "u").as_deref(), Some("http://h/v3"));
    }
}
