//! Subnet pools (api-ref `v2/subnetpools`): blocks from which projects cut subnets that do not overlap.
use super::{AddressScope, CIDRS, Subnet};
use crate::{admit, fail, ipam::range, sharing, tags};
use api::{Access, Call, Cx, Map, Reply, Result, Route};
use ipnet::IpNet;
use resource::{Deletion, Object, Reader, Resource, Rules, Tx, engine, load};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A stock of prefixes.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/subnetpools", name = "subnetpool", owner = "project", quota = "subnetpool", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct SubnetPool {
    #[field(create, update, required, filter, sort)]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, update, required, kind = CIDRS)]
    pub(crate) prefixes: Vec<IpNet>,
    #[field(filter, sort)]
    pub(crate) ip_version: Option<u8>,
    /// Sizes of what may be cut; texts on older clients' wire.
    #[field(create, update, filter, sort)]
    pub(crate) default_prefixlen: Option<u8>,
    #[field(create, update, filter, sort)]
    pub(crate) min_prefixlen: Option<u8>,
    #[field(create, update, filter, sort)]
    pub(crate) max_prefixlen: Option<u8>,
    /// How much one project may cut: addresses (IPv4) or /64 networks (IPv6).
    #[field(create, update)]
    pub(crate) default_quota: Option<u32>,
    #[field(create, filter, policy = "admin", default = false)]
    pub(crate) shared: bool,
    #[field(create, update, filter, policy = "admin", default = false)]
    pub(crate) is_default: bool,
    #[field(create, update, filter, index)]
    pub(crate) address_scope_id: Option<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl SubnetPool {
    /// Completes and checks all that needs no other row.
    fn complete(&mut self) -> Result<()> {
        let v4 = self
            .prefixes
            .first()
            .ok_or_else(|| fail::wrong("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.".into()))?
            .addr()
            .is_ipv4();
        if self.prefixes.iter().any(|p| p.addr().is_ipv4() != v4) {
            let text = "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.";
            return Err(fail::wrong("PrefixVersionMismatch", text.into()));
        }
        let (widest, smallest) = if v4 { (8, 32) } else { (64, 128) };
        self.ip_version = Some(if v4 { 4 } else { 6 });
        let min = *self.min_prefixlen.get_or_insert(widest);
        let max = *self.max_prefixlen.get_or_insert(smallest);
        let default = *self.default_prefixlen.get_or_insert(min);
        let text = |what: &str, a: u8, b: u8| format!("Illegal prefix bounds: {what}: {a}, {b}.");
        if min > max || max > smallest {
            return Err(fail::wrong("IllegalSubnetPoolPrefixBounds", text("min_prefixlen, max_prefixlen", min, max)));
        }
        if default < min || default > max {
            let bound = if default < min { min } else { max };
            return Err(fail::wrong("IllegalSubnetPoolPrefixBounds", text("default_prefixlen, bound", default, bound)));
        }
        self.prefixes = IpNet::aggregate(&self.prefixes);
        Ok(())
    }
}

fn check_scope(row: &Object<SubnetPool>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let Some(id) = &row.address_scope_id else { return Ok(()) };
    let missing = || fail::missing("AddressScopeNotFound", format!("Address scope {id} could not be found."));
    let scope: Object<AddressScope> = load(tx, id)?.ok_or_else(missing)?;
    if !sharing::may_use(tx, cx, &scope.map, sharing::SHARED) {
        return Err(missing());
    }
    if Some(scope.ip_version) != row.ip_version {
        let text = format!(
            "Illegal subnetpool association: subnetpool {} cannot associate with address scope {id} because subnetpool ip_version is not the scope's.",
            row.id
        );
        return Err(fail::wrong("IllegalSubnetPoolIpVersionAssociation", text));
    }
    // Pools of one scope do not overlap. Writing the scope makes two pools at once take turns.
    let others: Vec<Object<SubnetPool>> = resource::find(tx, "address_scope_id", id)?;
    let clash = |o: &Object<SubnetPool>| o.prefixes.iter().any(|a| row.prefixes.iter().any(|b| range::overlap(a, b)));
    if let Some(other) = others.iter().find(|o| o.id != row.id && clash(o)) {
        let text = format!("Subnet pool prefixes overlap with subnet pool {} in address scope {id}.", other.id);
        return Err(fail::refused("AddressScopePrefixConflict", text));
    }
    scope.save(tx)
}

impl Rules for SubnetPool {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.complete()?;
        check_default(row, tx)?;
        check_scope(row, cx, tx)?;
        let map = row.clone().into_map()?;
        sharing::follow_flag(tx, cx, "subnetpool", &map, sharing::SHARED);
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.complete()?;
        if let Some(lost) = old.prefixes.iter().find(|p| !row.prefixes.iter().any(|n| n.contains(*p))) {
            let text = format!("Existing prefixes must be a subset of the new prefixes; {lost} is missing.");
            return Err(fail::wrong("IllegalSubnetPoolUpdate", format!("Illegal subnetpool update : {text}")));
        }
        if row.is_default && !old.is_default {
            check_default(row, tx)?;
        }
        if row.address_scope_id != old.address_scope_id || row.prefixes != old.prefixes {
            check_scope(row, cx, tx)?;
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !tx.children(&Subnet::DEF.table, "subnetpool_id", &row.id).is_empty() {
            let text = "Unable to delete subnet pool: Subnet pool has existing allocations.";
            return Err(fail::refused("SubnetPoolDeleteError", text.into()));
        }
        sharing::forget(tx, &row.id)?;
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        // Neutron shows these as texts.
        for name in ["default_prefixlen", "min_prefixlen", "max_prefixlen"] {
            if let Some(n) = row.get(name).and_then(Value::as_u64) {
                out.insert(name.into(), n.to_string().into());
            }
        }
        out.insert("shared".into(), sharing::shown_as(row, cx, reader, sharing::SHARED).into());
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        sharing::sees(row, cx, reader)
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

fn check_default(row: &Object<SubnetPool>, tx: &mut Tx<'_>) -> Result<()> {
    if !row.is_default {
        return Ok(());
    }
    let same =
        |p: &store::Row| p.id() != row.id && p.field("is_default") == true && *p.field("ip_version") == json!(row.ip_version);
    if let Some(other) = tx.all(&SubnetPool::DEF.table).iter().find(|p| same(p)) {
        return Err(fail::invalid(format!(
            "A default subnetpool for this IP family has already been set. Only one default may exist per IP family: {}",
            other.id()
        )));
    }
    Ok(())
}

/// Gives a new subnet its block from the pool it names, if it names one.
pub(crate) fn cut(subnet: &mut Object<Subnet>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    if subnet.use_default_subnetpool == Some(true) && subnet.subnetpool_id.is_none() {
        let fits = |p: &store::Row| p.field("is_default") == true && *p.field("ip_version") == json!(subnet.ip_version);
        let pool = tx.all(&SubnetPool::DEF.table).iter().find(|p| fits(p)).map(|p| p.id().to_owned());
        subnet.subnetpool_id = Some(pool.ok_or_else(|| fail::bad("subnets", "No default subnetpool found"))?);
    }
    let Some(id) = subnet.subnetpool_id.clone() else {
        return match subnet.prefixlen {
            Some(_) => Err(fail::bad("subnets", "prefixlen needs a subnetpool; name one or give a cidr")),
            None => Ok(()),
        };
    };
    let missing = || fail::missing("SubnetPoolNotFound", format!("Subnet pool {id} could not be found."));
    let pool: Object<SubnetPool> = load(tx, &id)?.ok_or_else(missing)?;
    if !sharing::may_use(tx, cx, &pool.map, sharing::SHARED) {
        return Err(missing());
    }
    if pool.ip_version != Some(subnet.ip_version) {
        return Err(fail::bad("subnets", "Cannot allocate requested subnet: its ip_version is not that of the subnetpool"));
    }
    let others: Vec<Object<Subnet>> = resource::find(tx, "subnetpool_id", &id)?;
    let taken: Vec<IpNet> = others.iter().filter_map(|s| s.cidr).collect();
    let length = subnet.cidr.map(|c| c.prefix_len()).or(subnet.prefixlen).or(pool.default_prefixlen).unwrap_or(32);
    let (min, max) = (pool.min_prefixlen.unwrap_or(0), pool.max_prefixlen.unwrap_or(128));
    if length < min {
        let text = format!("Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {min}.");
        return Err(fail::wrong("MinPrefixSubnetAllocationError", text));
    }
    if length > max {
        let text = format!("Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {max}.");
        return Err(fail::wrong("MaxPrefixSubnetAllocationError", text));
    }
    check_share(&pool, subnet, &others, length)?;
    let no = |reason: &str| fail::refused("SubnetAllocationError", format!("Failed to allocate subnet: {reason}."));
    match subnet.cidr {
        None => {
            let found = range::free_network(&pool.prefixes, length, &taken);
            subnet.cidr = Some(found.ok_or_else(|| no("Insufficient prefix space to allocate subnet size"))?);
        }
        Some(wanted) => {
            let inside = pool.prefixes.iter().any(|p| p.contains(&wanted));
            if !inside || taken.iter().any(|t| range::overlap(t, &wanted)) {
                return Err(no("Cannot allocate requested subnet from the available set of prefixes"));
            }
        }
    }
    // Writing the pool makes two cuts at once take turns.
    pool.save(tx)
}

/// A project cuts no more than its share.
fn check_share(pool: &SubnetPool, subnet: &Object<Subnet>, others: &[Object<Subnet>], length: u8) -> Result<()> {
    let Some(quota) = pool.default_quota else { return Ok(()) };
    let bits = if subnet.ip_version == 4 { 32 } else { 64 };
    let size = |length: u8| 1u128 << bits.max(length).saturating_sub(length).min(127);
    let own = others.iter().filter(|s| s.project_id() == subnet.project_id());
    let used: u128 = own.filter_map(|s| s.cidr).map(|c| size(c.prefix_len())).sum();
    if used + size(length) > u128::from(quota) {
        return Err(fail::refused("SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.".into()));
    }
    Ok(())
}

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("PUT", "/v2.0/subnetpools/{id}/add_prefixes", any, |call| change(call, true)),
        Route::new("PUT", "/v2.0/subnetpools/{id}/remove_prefixes", any, |call| change(call, false)),
    ]
}

async fn change(call: Call, adding: bool) -> Result<Reply> {
    let id = admit::changeable(SubnetPool::DEF, &call)?;
    let wanted = call.object()?.get("prefixes").cloned().unwrap_or_default();
    let wanted: Vec<IpNet> = serde_json::from_value(wanted)
        .map_err(|_| api::Error::invalid("prefixes", "it is not a list of IP networks in CIDR notation"))?;
    let prefixes = call
        .transact(move |cx, tx| {
            let mut pool: Object<SubnetPool> = load(tx, &id)?.ok_or_else(|| engine::not_found(SubnetPool::DEF, &id))?;
            let v4 = pool.ip_version == Some(4);
            if wanted.iter().any(|w| w.addr().is_ipv4() != v4) {
                return Err(fail::wrong("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.".into()));
            }
            if adding {
                pool.prefixes.extend(wanted.iter().copied());
                pool.prefixes = IpNet::aggregate(&pool.prefixes);
                check_scope(&pool, cx, tx)?;
            } else {
                let used: Vec<Object<Subnet>> = resource::find(tx, "subnetpool_id", &id)?;
                if used.iter().filter_map(|s| s.cidr).any(|c| wanted.iter().any(|w| range::overlap(w, &c))) {
                    return Err(fail::wrong(
                        "IllegalSubnetPoolPrefixUpdate",
                        "One or more prefixes to remove are in use by a subnet.".into(),
                    ));
                }
                pool.prefixes = without(&pool.prefixes, &wanted);
            }
            pool.save(tx)?;
            Ok(pool.prefixes.clone())
        })
        .await?;
    Ok(Reply::ok(json!({ "prefixes": prefixes })))
}

/// `all` less what `gone` covers, split where need be.
fn without(all: &[IpNet], gone: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    let mut todo: Vec<IpNet> = all.to_vec();
    while let Some(net) = todo.pop() {
        if gone.iter().any(|g| g.contains(&net)) {
            continue;
        }
        match (gone.iter().any(|g| net.contains(g)), net.subnets(net.prefix_len() + 1)) {
            (true, Ok(halves)) => todo.extend(halves),
            _ => left.push(net),
        }
    }
    IpNet::aggregate(&left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_a_part_splits_the_rest() {
        let nets = |list: &[&str]| -> Vec<IpNet> { list.iter().map(|s| s.parse().unwrap()).collect() };
        assert_eq!(without(&nets(&["10.0.0.0/22"]), &nets(&["10.0.1.0/24"])), nets(&["10.0.0.0/24", "10.0.2.0/23"]));
        assert_eq!(without(&nets(&["10.0.0.0/24"]), &nets(&["10.0.0.0/16"])), nets(&[]));
    }
}
