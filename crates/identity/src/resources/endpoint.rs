//! Endpoints of the catalog (Keystone api-ref, `v3/endpoints`).
use super::{REGION, SERVICE};
use crate::{cascade, rows::Rows as _};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where a service is reached.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/endpoints", id = "hex", extras)]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Endpoint {
    /// For whom it is.
    #[field(create, update, required, filter, kind = Kind::Choice(&INTERFACES))]
    pub(crate) interface: String,
    /// The service.
    #[field(create, update, required, filter, index)]
    pub(crate) service_id: String,
    /// The region.
    #[field(create, update, filter, index)]
    pub(crate) region_id: Option<String>,
    /// The region by its old name; one that does not exist is made.
    #[field(create, update)]
    pub(crate) region: Option<String>,
    /// May hold `$(project_id)s`.
    #[field(create, update, required, kind = Kind::Text { min: 1, max: 225 })]
    pub(crate) url: String,
    /// Is it in the catalog?
    #[field(create, update, filter, default = true, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
}

/// For whom endpoints are.
pub(super) const INTERFACES: [&str; 3] = ["admin", "internal", "public"];

const DESCRIPTION: Kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 });

/// `SCHEME:REST`, of which a client may make what it likes.
fn check_url(url: &str) -> Result<()> {
    let is_scheme = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'-'));
    match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() && !rest.starts_with('\n') => Ok(()),
        _ => Err(Error::bad_request("The url of an endpoint begins with a scheme and a colon, as https:.")),
    }
}

impl Endpoint {
    /// `region` and `region_id` say the same; whichever is new counts.
    fn place(row: &mut Object<Self>, old: Option<&Object<Self>>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if tx.row(&SERVICE.table, &row.service_id).is_none() {
            return Err(Error::bad_request(format!("Endpoint references a service that does not exist: {}.", row.service_id)));
        }
        let known = old.and_then(|o| o.region_id.clone());
        let by_name = row.region.is_some() && (old.is_none() || row.region != known) && row.region_id == known;
        if by_name {
            let name = row.region.clone().unwrap_or_default();
            if tx.row(&REGION.table, &name).is_none() {
                let input = json!({"id": name, "description": ""});
                engine::create(tx, REGION, cx, input.as_object().unwrap_or(&Map::new()))?;
            }
            row.region_id = Some(name);
        } else if let Some(id) = &row.region_id
            && tx.row(&REGION.table, id).is_none()
        {
            return Err(Error::bad_request(format!("Endpoint references a region that does not exist: {id}.")));
        }
        row.region = row.region_id.clone();
        check_url(&row.url)?;
        super::check_extra(&row.map, &[("name", Kind::Text { min: 0, max: 65535 }), ("description", DESCRIPTION)])?;
        let inside: Vec<&str> = row.url.split("(").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        if let Some(name) = inside.iter().find(|n| !["project_id", "tenant_id", "user_id"].contains(n)) {
            return Err(Error::bad_request(format!("An invalid URL template: it may not refer to {name}.")));
        }
        Ok(())
    }
}

impl Rules for Endpoint {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        Self::place(row, None, cx, tx)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        Self::place(row, Some(old), cx, tx)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        cascade::links(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        out.insert("region".into(), row.get("region_id").cloned().unwrap_or(Value::Null));
    }
}
