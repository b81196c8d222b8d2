//! Logins and tokens, and lists of very many users and projects.
use crate::{
    Result,
    cloud::Cloud,
    load::{Request, each, rate},
    table::Table,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const TOKENS: &str = "/identity/v3/auth/tokens";

pub(crate) async fn logins(cloud: &Cloud, admin: &str, span: Duration, table: &mut Table) -> Result<()> {
    let token = cloud.token("demo").await?;
    // The first login of each user pays for the hash; users are made in passing.
    let first = cloud.make_users(admin, 60).await?;
    let requests = |bodies: &[Value]| Arc::new(bodies.iter().map(|u| Request::post(TOKENS, u)).collect::<Vec<_>>());
    let (one, many) = first.split_at(20);
    let s = each(&cloud.addr, 1, requests(one)).await?;
    table.add("password login, first login, 1 client (ms, median)", s.ms(0.5));
    let s = each(&cloud.addr, 8, requests(many)).await?;
    table.add("password login, first login, 8 clients (1/s)", s.per_second());

    let returning = Request::post(TOKENS, &cloud.login_body("demo")?);
    let s = rate(&cloud.addr, 1, span, true, returning.clone()).await?;
    table.add("password login, returning user, 1 client (ms, median)", s.ms(0.5));
    let s = rate(&cloud.addr, 32, span, true, returning).await?;
    table.add("password login, returning user, 32 clients (1/s)", s.per_second());
    let by_token = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}});
    let s = rate(&cloud.addr, 8, span, true, Request::post(TOKENS, &by_token)).await?;
    table.add("new token by token, 8 clients (1/s)", s.per_second());

    let validate = Request::get(TOKENS).header("x-auth-token", admin).header("x-subject-token", &token);
    let s = rate(&cloud.addr, 1, span, true, validate.clone()).await?;
    table.add("token validation, 1 client (ms, median)", s.ms(0.5));
    let s = rate(&cloud.addr, 32, span, true, validate.clone()).await?;
    table.add("token validation, 32 clients (1/s)", s.per_second());
    let s = rate(&cloud.addr, 32, span, false, validate).await?;
    table.add("token validation, 32 clients, new connections (1/s)", s.per_second());
    Ok(())
}

/// Lists of `count` users and of `count` projects, each as one answer.
pub(crate) async fn lists(cloud: &Cloud, admin: &str, count: usize, span: Duration, table: &mut Table) -> Result<()> {
    let kinds = [
        ("user", "users", "user list, 10,000 users (ms, median)"),
        ("project", "projects", "project list, 10,000 projects (ms, median)"),
    ];
    for (kind, plural, figure) in kinds {
        let path = format!("/identity/v3/{plural}");
        // Users without passwords: the hashes of so many would be what is measured.
        let body =
            |i: usize| json!({kind: {"name": format!("bench-list-{i}"), "domain_id": "default", "description": "One of many"}});
        let create = (0..count).map(|i| Request::post(&path, &body(i)).header("x-auth-token", admin)).collect();
        each(&cloud.addr, 16, Arc::new(create)).await?;
        let listed = cloud.get(admin, &path).await?[plural].as_array().map_or(0, Vec::len);
        if listed < count {
            return Err(format!("{path} lists {listed} where at least {count} are").into());
        }
        let s = rate(&cloud.addr, 1, span, true, Request::get(&path).header("x-auth-token", admin)).await?;
        table.add(figure, s.ms(0.5));
    }
    Ok(())
}
