//! Who is in which group.
use super::{allow, auth, create_at_home, forbidden, get, list, object, view};
use crate::{
    directory::{READ_ONLY, is_gone},
    grants,
    resources::{GROUP, USER},
    rows::{MEMBERSHIPS, Rows as _},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("POST", "/v3/groups", any, |call| create_at_home(GROUP, call)),
        Route::new("GET", "/v3/groups/{group_id}/users", any, members),
        Route::new("PUT", "/v3/groups/{group_id}/users/{user_id}", any, add),
        Route::new("GET", "/v3/groups/{group_id}/users/{user_id}", any, check),
        Route::new("DELETE", "/v3/groups/{group_id}/users/{user_id}", any, remove),
        Route::new("GET", "/v3/users/{user_id}/groups", any, groups_of_user),
    ]
}

/// Rules of these handlers; their targets are the group, or the user.
pub(crate) const RULES: [(&str, &str); 5] = [
    ("identity:list_users_in_group", "rule:identity:domain_reader"),
    ("identity:add_user_to_group", "rule:identity:domain_manager"),
    ("identity:check_user_in_group", "rule:identity:domain_reader"),
    ("identity:remove_user_from_group", "rule:identity:domain_manager"),
    ("identity:list_groups_for_user", "rule:identity:domain_reader or user_id:%(id)s"),
];

fn admitted(call: &Call, action: &str) -> Result<Map> {
    let row = get(&call.reader(), GROUP, call.param("group_id"));
    allow(call, action, row.as_ref().ok())?;
    row
}

/// Readers of one domain see who is of that domain.
fn is_shown(call: &Call, row: &Map) -> bool {
    let own = call.cx.caller.domain_id();
    own.is_none() || row.get("domain_id").and_then(Value::as_str) == own
}

/// Fails with 403 for users who are not of the group's domain, unless the rule holds. Users who are not there are not told apart.
fn check_user(call: &Call, action: &str, group: &Map, beyond: &str) -> Result<()> {
    let user = get(&call.reader(), USER, call.param("user_id"));
    let same = user.as_ref().is_ok_and(|user| user.get("domain_id") == group.get("domain_id"));
    if same || call.cx.may(beyond, None) { user.map(|_| ()) } else { Err(forbidden(action)) }
}

async fn members(call: Call) -> Result<Reply> {
    admitted(&call, "list_users_in_group")?;
    super::users::check_filters(&call)?;
    auth(&call)?.directories.members(call.param("group_id")).await?;
    let reader = call.reader();
    let expiries: Vec<&str> = call.cx.query.all("password_expires_at").collect();
    let fits =
        |row: &Map| expiries.is_empty() || (USER.hooks.filter)(row, "password_expires_at", &expiries, &call.cx) == Some(true);
    let ids = grants::members_of(&mut &reader, call.param("group_id"), call.cloud.db.now());
    let rows = ids.iter().filter_map(|id| (&reader).row(&USER.table, id)).filter(|r| !is_gone(r));
    let mut shown = Vec::new();
    for row in rows {
        let row = object(&row)?;
        if fits(row) && is_shown(&call, row) {
            shown.push(view(USER, row, &call, &reader));
        }
    }
    Ok(list(&call, "users", shown))
}

async fn add(call: Call) -> Result<Reply> {
    let group = admitted(&call, "add_user_to_group")?;
    // A manager of one domain does not bring in users of another.
    check_user(&call, "add_user_to_group", &group, "admin")?;
    let user = get(&call.reader(), USER, call.param("user_id"))?;
    check_writable(&call, &group, &user)?;
    let (group, user) = (call.param("group_id").to_owned(), call.param("user_id").to_owned());
    call.transact(move |_, tx| {
        for (def, id) in [(GROUP, &group), (USER, &user)] {
            tx.row(&def.table, id).ok_or_else(|| engine::not_found(def, id))?;
        }
        tx.put(&MEMBERSHIPS, &format!("{group}:{user}"), json!({"group_id": group, "user_id": user, "v": 1}));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// Who is in a directory's group is the directory's affair, and nobody is in a group of another back end.
fn check_writable(call: &Call, group: &Map, user: &Map) -> Result<()> {
    let there = |row: &Map| row.get("directory").is_some_and(Value::is_object);
    match (there(group), there(user)) {
        (false, false) => Ok(()),
        (true, true) => Err(Error::forbidden(READ_ONLY)),
        _ => Err(Error::forbidden(format!(
            "Group membership across backend boundaries is not allowed. Group in question is {}, user is {}.",
            call.param("group_id"),
            call.param("user_id")
        ))),
    }
}

fn not_a_member(call: &Call) -> Error {
    Error::not_found(format!("User '{}' not found in group '{}'.", call.param("user_id"), call.param("group_id")))
}

fn key(call: &Call) -> String {
    format!("{}:{}", call.param("group_id"), call.param("user_id"))
}

async fn check(call: Call) -> Result<Reply> {
    // One may ask about oneself.
    if call.param("user_id") != call.cx.caller.user_id() {
        let group = admitted(&call, "check_user_in_group")?;
        check_user(&call, "check_user_in_group", &group, "identity:any_reader")?;
    }
    auth(&call)?.directories.refresh(USER, call.param("user_id")).await?;
    let found = call.reader().get(&MEMBERSHIPS, &key(&call)).filter(|r| grants::lasts(r, call.cloud.db.now()));
    found.map(|_| Reply::empty(204)).ok_or_else(|| not_a_member(&call))
}

async fn remove(call: Call) -> Result<Reply> {
    let group = admitted(&call, "remove_user_from_group")?;
    if group.get("directory").is_some_and(Value::is_object) {
        return Err(Error::forbidden(READ_ONLY));
    }
    check_user(&call, "remove_user_from_group", &group, "admin")?;
    if call.reader().get(&MEMBERSHIPS, &key(&call)).is_none() {
        return Err(not_a_member(&call));
    }
    let key = key(&call);
    call.transact(move |_, tx| {
        tx.delete(&MEMBERSHIPS, &key);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn groups_of_user(call: Call) -> Result<Reply> {
    let user = get(&call.reader(), USER, call.param("user_id"));
    let asked = json!({"id": call.param("user_id")});
    allow(&call, "list_groups_for_user", user.as_ref().ok().or(asked.as_object()))?;
    user?;
    auth(&call)?.directories.refresh(USER, call.param("user_id")).await?;
    let reader = call.reader();
    let mut shown = Vec::new();
    for id in grants::groups_of(&mut &reader, call.param("user_id"), call.cloud.db.now()) {
        if let Some(row) = (&reader).row(&GROUP.table, &id)
            && call.cx.query.get("name").is_none_or(|n| n == row.text("name"))
            && (call.param("user_id") == call.cx.caller.user_id() || is_shown(&call, object(&row)?))
        {
            let mut group = view(GROUP, object(&row)?, &call, &reader);
            let membership = reader.get(&MEMBERSHIPS, &format!("{id}:{}", call.param("user_id")));
            let ends = membership.and_then(|r| r.field("expires_at").as_i64());
            group["membership_expires_at"] = ends.map(|at| base::Timestamp(at).micros_z()).into();
            shown.push(group);
        }
    }
    Ok(list(&call, "groups", shown))
}
