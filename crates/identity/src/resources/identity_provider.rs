//! Identity providers (Keystone api-ref, `v3-ext/federation`): who outside may say who somebody is. Made by `PUT`:
//! [`crate::handlers::federation`]; their protocols are rows of their own.
use super::{IDENTITY_PROVIDER, check_domain};
use crate::{
    cascade,
    federation::remote_id_key,
    resources::DOMAIN,
    rows::{PROTOCOLS, REMOTE_IDS},
};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Somebody whose word counts, as far as a mapping goes.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-FEDERATION/identity_providers", id = "given")]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct IdentityProvider {
    /// What it is.
    #[field(create, update)]
    pub(crate) description: Option<String>,
    /// May anybody come by it?
    #[field(create, update, filter, default = false, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
    /// What it calls itself; no other provider has one of these. Any, when there are none.
    #[field(create, update, default = [(); 0], kind = Kind::Optional(&Kind::List(&Kind::Text { min: 1, max: 255 })))]
    pub(crate) remote_ids: Option<Vec<String>>,
    /// The domain of its users; one of its own is made when none is named.
    #[field(create, index)]
    pub(crate) domain_id: Option<String>,
    /// Minutes for which groups that a mapping gives stay given.
    #[field(create, update, kind = Kind::Optional(&Kind::Int { min: 0, max: 5_256_000 }))]
    pub(crate) authorization_ttl: Option<i64>,
}

fn remote_ids(row: &IdentityProvider) -> &[String] {
    row.remote_ids.as_deref().unwrap_or_default()
}

/// Takes the names; fails with 409 when another provider has one.
fn claim(row: &Object<IdentityProvider>, tx: &mut Tx<'_>) -> Result<()> {
    for remote in remote_ids(row) {
        let key = remote_id_key(remote);
        match tx.get(&REMOTE_IDS, &key) {
            Some(other) if other.text("idp_id") != row.id => {
                return Err(Error::conflict(format!("Duplicate remote ID: {remote}. Another identity provider has it.")));
            }
            _ => tx.put(&REMOTE_IDS, &key, json!({"idp_id": row.id, "v": 1})),
        }
    }
    Ok(())
}

fn release(row: &Object<IdentityProvider>, tx: &mut Tx<'_>) {
    remote_ids(row).iter().for_each(|remote| tx.delete(&REMOTE_IDS, &remote_id_key(remote)));
}

fn check(row: &mut Object<IdentityProvider>) -> Result<()> {
    let ids = row.remote_ids.get_or_insert_default();
    if ids.iter().enumerate().any(|(i, id)| ids[..i].contains(id)) {
        return Err(Error::bad_request("Invalid input for field 'remote_ids': it has non-unique elements."));
    }
    Ok(())
}

impl Rules for IdentityProvider {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check(row)?;
        match &row.domain_id {
            Some(domain) => check_domain(tx, domain)?,
            None => {
                let name = base::id::hex();
                let why = format!("Auto generated federated domain for Identity Provider: {}", row.id);
                let input = json!({"name": name, "description": why, "enabled": true});
                let domain = engine::create(tx, DOMAIN, cx, input.as_object().unwrap_or(&Map::new()))?;
                row.domain_id = domain.get("id").and_then(|id| id.as_str()).map(str::to_owned);
            }
        }
        claim(row, tx)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check(row)?;
        release(old, tx);
        claim(row, tx)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        release(row, tx);
        for protocol in tx.children(&PROTOCOLS, "idp_id", &row.id) {
            tx.delete(&PROTOCOLS, protocol.id());
        }
        cascade::identity_provider(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn view(_row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        if let Some(links) = out.get_mut("links")
            && let Some(here) = links["self"].as_str()
        {
            links["protocols"] = format!("{here}/protocols").into();
        }
    }

    fn visible(_row: &Map, _cx: &Cx, _reader: &Reader<'_>) -> bool {
        true
    }
}

/// A provider by its id, enabled or not.
pub(crate) fn find(rows: &mut dyn crate::rows::Rows, id: &str) -> Result<std::sync::Arc<store::Row>> {
    rows.row(&IDENTITY_PROVIDER.table, id).ok_or_else(|| engine::not_found(IDENTITY_PROVIDER, id))
}
