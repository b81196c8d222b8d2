//! The one pipeline: from an HTTP request to a handler and back.
use crate::{
    Access, Body, BodyForm, Call, Cloud, Cx, Error, Microversions, Reply, ReplyBody, Result, Route, Service, crud,
    dialect::{Dialect, IDENTITY, error_reply},
    idempotency::{Keyed, Place, once},
    incoming::Incoming,
    meter::{Meter, Meters, metrics},
    ticket::{self, Ticket},
};
use auth::Caller;
use axum::{
    Router,
    body::Body as HttpBody,
    extract::{FromRequestParts, RawPathParams, Request, State, WebSocketUpgrade, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode},
    routing::{any, get},
};
use base::{Version, metrics::Exporter};
use futures_util::{FutureExt, StreamExt};
use resource::Query;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};
use tokio::time::{Instant, timeout_at};

/// Largest JSON body in bytes; larger ones are 413.
const MAX_JSON: usize = 2 * 1024 * 1024;

/// The project in the path of Cinder's older clients; it must be the token's.
const PATH_PROJECT: &str = "path_project";

struct Site {
    dialect: &'static Dialect,
    prefix: &'static str,
    microversions: Option<Microversions>,
    routes: Vec<Route>,
    cloud: Arc<Cloud>,
    public: Arc<str>,
    identity: Arc<str>,
    meters: Arc<Meters>,
    /// For what is none of the routes.
    lost: Arc<Meter>,
}

impl Site {
    /// Where paths end that are no service's route.
    fn lost(
        dialect: &'static Dialect,
        prefix: &'static str,
        microversions: Option<Microversions>,
        cloud: &Arc<Cloud>,
        public: &str,
        meters: &Arc<Meters>,
    ) -> Arc<Self> {
        let (meters, lost) = (meters.clone(), meters.lost(dialect.name));
        let (public, identity) = (format!("{public}{prefix}").into(), format!("{public}/identity").into());
        Arc::new(Self {
            dialect,
            prefix,
            microversions,
            routes: Vec::new(),
            cloud: cloud.clone(),
            public,
            identity,
            meters,
            lost,
        })
    }
}

/// All services as one HTTP application.
pub struct Edge {
    pub router: Router,
}

/// Rules of all services: names and default texts, for the policy book.
pub fn rules(services: &[Service]) -> Vec<(&'static str, &'static str)> {
    let mut out = Vec::new();
    for s in services {
        for def in &s.resources {
            out.extend(crud::resource_rules(def, s.dialect));
        }
        for r in &s.routes {
            if let Access::Rule(name, text) = r.access {
                out.push((name, text));
            }
        }
        out.extend(s.rules.iter().copied());
    }
    out
}

impl Edge {
    pub fn new(cloud: Arc<Cloud>, services: Vec<Service>) -> Self {
        let mut router = Router::new();
        let meters = Arc::<Meters>::default();
        if let Some(exporter) = cloud.state.get::<Exporter>() {
            let meters = meters.clone();
            exporter.add(move |out| meters.collect(out));
            router = router.route("/metrics", get(metrics).with_state(exporter));
        }
        let public = cloud.settings.public_endpoint.trim_end_matches('/').to_owned();
        for service in services {
            let mut by_path: BTreeMap<&'static str, Vec<Route>> = BTreeMap::new();
            for route in service.routes {
                by_path.entry(route.path).or_default().push(route);
            }
            for def in &service.resources {
                for route in crud::resource_routes(def, service.dialect) {
                    let at = by_path.entry(route.path).or_default();
                    if !at.iter().any(|r| r.method == route.method) {
                        at.push(route);
                    }
                }
            }
            let lost = meters.lost(service.name);
            for (path, mut routes) in by_path {
                let full = format!("{}{}", service.prefix, path);
                let full = if full.len() > 1 { full.trim_end_matches('/').to_owned() } else { full };
                // Cinder's older clients put their project into the path, before everything else.
                let below_project = path
                    .strip_prefix("/v3/")
                    .filter(|rest| !rest.is_empty() && service.dialect.name == "volume")
                    .map(|rest| format!("{}/v3/{{{PATH_PROJECT}}}/{rest}", service.prefix));
                routes.iter_mut().for_each(|r| r.meter = meters.of(service.name, r, &full));
                let site = Arc::new(Site {
                    dialect: service.dialect,
                    prefix: service.prefix,
                    microversions: service.microversions,
                    routes,
                    cloud: cloud.clone(),
                    public: format!("{public}{}", service.prefix).into(),
                    identity: format!("{public}/identity").into(),
                    meters: meters.clone(),
                    lost: lost.clone(),
                });
                if let Some(path) = below_project {
                    router = router.route(&path, any(handle).with_state(site.clone()));
                }
                router = router.route(&full, any(handle).with_state(site));
            }
            if !service.prefix.is_empty() {
                let lost = Site::lost(service.dialect, service.prefix, service.microversions, &cloud, &public, &meters);
                let lost = any(handle).with_state(lost);
                router = router.route(&format!("{}/{{*rest}}", service.prefix), lost);
            }
        }
        let router = router.fallback_service(any(handle).with_state(Site::lost(&IDENTITY, "", None, &cloud, &public, &meters)));
        Self { router }
    }
}

type Params = Result<RawPathParams, RawPathParamsRejection>;

async fn handle(State(site): State<Arc<Site>>, params: Params, request: Request) -> Response<HttpBody> {
    let started = Instant::now();
    let request_id: Arc<str> = base::id::request_id().into();
    let method = request.method().clone();
    let params = params.map(|p| p.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<(String, String)>>()).ok();
    let path = logged(request.uri().path(), params.as_deref().unwrap_or_default());
    let under_way = site.meters.begin();
    let mut seen = Seen::default();
    let answer = run(&site, params, request, &request_id, &mut seen, started);
    let (mut reply, upgrade) = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => (error_reply(site.dialect, &e, &request_id, &site.identity), None),
        Err(_) => (error_reply(site.dialect, &Error::internal("a handler panicked"), &request_id, &site.identity), None),
    };
    if reply.status == 405 {
        reply.headers.push(("allow", allowed(&site.routes)));
    }
    reply.headers.push(("x-openstack-request-id", request_id.to_string()));
    if site.dialect.name == "compute" {
        reply.headers.push(("x-compute-request-id", request_id.to_string()));
    }
    if let (Some(m), Some(v)) = (&site.microversions, seen.version) {
        reply.headers.push(("openstack-api-version", format!("{} {v}", m.name)));
        let mut vary = "OpenStack-API-Version".to_owned();
        if let Some(legacy) = m.legacy_header {
            reply.headers.push((legacy, v.to_string()));
            vary = format!("{vary}, {legacy}");
        }
        reply.headers.push(("vary", vary));
    }
    let status = reply.status;
    let response = to_http(reply, upgrade);
    let took = started.elapsed();
    under_way.answered(seen.meter.as_ref().unwrap_or(&site.lost), status, took);
    let ms = took.as_micros() as f64 / 1000.0;
    tracing::debug!(%request_id, %method, path, status, ms, "Request");
    response
}

/// A path without the secret that it carries.
fn logged(path: &str, params: &[(String, String)]) -> String {
    match params.iter().find(|(name, _)| name == "token") {
        Some((_, token)) => path.replace(token.as_str(), "***"),
        None => path.to_owned(),
    }
}

/// Methods of a path, for `Allow`.
fn allowed(routes: &[Route]) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        if !methods.contains(&route.method) {
            methods.push(route.method);
        }
    }
    methods.join(", ")
}

/// What is known of a request, however it ends.
#[derive(Default)]
struct Seen {
    version: Option<Version>,
    meter: Option<Arc<Meter>>,
}

type Done = (Reply, Option<WebSocketUpgrade>);

async fn run(
    site: &Arc<Site>,
    params: Option<Vec<(String, String)>>,
    request: Request,
    request_id: &Arc<str>,
    seen: &mut Seen,
    started: Instant,
) -> Result<Done> {
    let deadline = ticket::deadline(request.headers(), started);
    // Nothing is changed before the handler runs.
    let admitted = timeout_at(deadline, admit(site, params, request, request_id, seen, deadline)).await;
    let (route, call, upgrade) = admitted.map_err(|_| ticket::late())??;
    let ticket = call.ticket.clone();
    let place = Place { dialect: site.dialect, route, identity: site.identity.clone() };
    Ok((ticket.bound(once(place, call)).await?, upgrade))
}

/// Everything before the handler.
async fn admit<'a>(
    site: &'a Site,
    params: Option<Vec<(String, String)>>,
    request: Request,
    request_id: &Arc<str>,
    seen: &mut Seen,
    deadline: Instant,
) -> Result<(&'a Route, Call, Option<WebSocketUpgrade>)> {
    let (mut parts, body) = request.into_parts();
    let body = Incoming::new(body);
    // What is not UTF-8 names nothing.
    let lost = site.routes.is_empty() || params.is_none();
    let version = negotiate(site.microversions.as_ref(), &parts.headers, &mut seen.version)?;
    let wanted = if parts.method.as_str() == "HEAD" { "GET" } else { parts.method.as_str() };
    let fits = |m: &str| site.routes.iter().filter(|r| (r.since..=r.until).contains(&version)).find(|r| r.method == m);
    let route = fits(parts.method.as_str()).or_else(|| fits(wanted));
    let (Some(route), Some(params)) = (route, params) else {
        // Routing must not tell more to those who are not known.
        let token = token(&parts.headers)?;
        site.cloud.db.fresh().await?;
        caller(site, token, &parts.headers).await?;
        let known = site.routes.iter().any(|r| (r.since..=r.until).contains(&version));
        return Err(if lost || !known {
            Error::not_found("The resource could not be found.")
        } else {
            Error::method_not_allowed(format!("The method {} is not allowed for this resource.", parts.method))
        });
    };
    seen.meter = Some(route.meter.clone());
    let token = token(&parts.headers);
    // Who a token stands for must be as fresh as the rows that it is used on: one question to the store for both.
    let asks = token.is_ok() || (route.rows && route.access == Access::Public);
    let fresh = if asks { site.cloud.db.fresh().await.map(drop) } else { Ok(()) };
    if route.rows || route.access != Access::Public {
        fresh.clone()?;
    }
    let caller = match (route.access, token) {
        // A public route may still want to know who asks, when it is told.
        (Access::Public, Ok(token)) if fresh.is_ok() => {
            caller(site, token, &parts.headers).await.unwrap_or_else(|_| Arc::new(Caller::anonymous()))
        }
        (Access::Public, _) => Arc::new(Caller::anonymous()),
        (Access::Authenticated | Access::Rule(..), token) => caller(site, token?, &parts.headers).await?,
    };
    let below = parts.uri.path().strip_prefix(site.prefix).unwrap_or_default();
    if !service_types(&site.dialect.name).iter().any(|kind| caller.may_request(kind, parts.method.as_str(), below)) {
        return Err(Error::unauthorized("The request you have made requires authentication.").context("no access rule names it"));
    }
    if params.iter().any(|(k, v)| k == PATH_PROJECT && caller.project_id() != Some(v)) && route.access != Access::Public {
        return Err(Error::bad_request("Malformed request url: the project in it is not the token's."));
    }
    let cx = Cx {
        caller,
        version,
        request_id: request_id.clone(),
        query: Arc::new(query(parts.uri.query().unwrap_or_default())),
        settings: site.cloud.settings.clone(),
        policy: site.cloud.policy.in_force(&site.cloud.db.read()).book.clone(),
        public: site.public.clone(),
        params: with_detail(params, parts.uri.path()).into(),
        state: site.cloud.state.clone(),
        registry: site.cloud.registry.clone(),
    };
    if let Access::Rule(name, _) = route.access
        && !cx.may(name, None)
    {
        return Err(Error::forbidden(match site.dialect.name {
            "identity" => format!("You are not authorized to perform the requested action: {name}."),
            "network" => format!("(rule:{name}) is disallowed by policy"),
            _ => format!("Policy doesn't allow {name} to be performed."),
        }));
    }
    let upgrade = if parts.headers.contains_key("upgrade") {
        WebSocketUpgrade::from_request_parts(&mut parts, &()).await.ok()
    } else {
        None
    };
    let has_body = !matches!(parts.method.as_str(), "GET" | "HEAD");
    let form = route.body;
    let body = match form {
        BodyForm::Stream => Body::Stream(Mutex::new(Some(Box::pin(body)))),
        BodyForm::Json if has_body => {
            // What does not claim to be JSON is none; the handler says what it wants instead.
            let media = parts.headers.get("content-type").and_then(|v| v.to_str().ok());
            let lenient = parts.method.as_str() == "DELETE" || media.is_some_and(|m| !m.contains("json"));
            Body::Json(read_json(body, lenient).await?)
        }
        BodyForm::Json => Body::Json(Value::Null),
    };
    let keyed = match &body {
        Body::Json(json) if route.method == "POST" && route.access != Access::Public => {
            let path = parts.uri.path_and_query().map_or("", |p| p.as_str());
            Keyed::of(&parts.headers, &cx.caller, request_id, path, json)?
        }
        Body::Json(_) | Body::Stream(_) => None,
    };
    // Streams take as long as they take.
    let ticket = Ticket::new((form == BodyForm::Json).then_some(deadline), keyed);
    let headers = parts.headers.iter().filter_map(|(k, v)| Some((k.as_str().to_owned(), v.to_str().ok()?.to_owned()))).collect();
    let path = parts.uri.path().strip_prefix(site.prefix).unwrap_or_default().to_owned();
    Ok((route, Call { cx, cloud: site.cloud.clone(), method: route.method, path, headers, body, ticket }, upgrade))
}

/// What access rules call the service: its types in the catalog.
fn service_types<'a>(name: &'a &'static str) -> &'a [&'static str] {
    match *name {
        "volume" => &["block-storage", "volumev3", "volume"],
        _ => std::slice::from_ref(name),
    }
}

/// Lists of two forms tell their links apart by this.
fn with_detail(mut params: Vec<(String, String)>, path: &str) -> Vec<(String, String)> {
    if path.trim_end_matches('/').ends_with("/detail") {
        params.push(("*detail".into(), "yes".into()));
    }
    params
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty())
}

fn token(headers: &HeaderMap) -> Result<&str> {
    header(headers, "x-auth-token").ok_or_else(|| Error::unauthorized("The request you have made requires authentication."))
}

async fn caller(site: &Site, token: &str, headers: &HeaderMap) -> Result<Arc<Caller>> {
    site.cloud.authenticator.authenticate(token, header(headers, "x-service-token")).await
}

fn negotiate(m: Option<&Microversions>, headers: &HeaderMap, shown: &mut Option<Version>) -> Result<Version> {
    let Some(m) = m else { return Ok(Version::MIN) };
    let named =
        headers.get_all("openstack-api-version").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).find_map(
            |v| {
                let (name, version) = v.trim().split_once(char::is_whitespace)?;
                (name == m.name).then(|| version.trim().to_owned())
            },
        );
    let legacy = || m.legacy_header.and_then(|h| headers.get(h)).and_then(|v| v.to_str().ok()).map(|v| v.trim().to_owned());
    let asked = named.or_else(legacy);
    *shown = Some(m.min);
    let version = match asked.as_deref() {
        None => m.min,
        Some("latest") => m.max,
        Some(text) => match Version::parse(text) {
            None => {
                return Err(Error::bad_request(format!(
                    "API Version String '{text}' is of invalid format. It must be of format MajorNum.MinorNum."
                )));
            }
            Some(v) if v < m.min || v > m.max => {
                return Err(Error::not_acceptable(format!(
                    "Version {v} is not supported by the API. Minimum is {} and maximum is {}.",
                    m.min, m.max
                )));
            }
            Some(v) => v,
        },
    };
    *shown = Some(version);
    Ok(version)
}

fn query(text: &str) -> Query {
    let decode = |s: &str| percent_encoding::percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    Query(
        text.split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').map_or_else(|| (decode(p), String::new()), |(k, v)| (decode(k), decode(v))))
            .collect(),
    )
}

async fn read_json(mut body: Incoming, lenient: bool) -> Result<Value> {
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|_| Error::bad_request("The request body could not be read whole; send it again."))?;
        bytes.extend_from_slice(&part);
        if bytes.len() > MAX_JSON {
            return Err(Error::too_large(format!("The request body is larger than {MAX_JSON} bytes; send less at once.")));
        }
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice(&bytes) {
        Ok(v) => Ok(v),
        Err(_) if lenient => Ok(Value::Null),
        Err(e) => Err(Error::bad_request(format!("Malformed JSON: the request body cannot be read ({e})."))),
    }
}

fn to_http(reply: Reply, upgrade: Option<WebSocketUpgrade>) -> Response<HttpBody> {
    let mut out = Response::new(HttpBody::empty());
    *out.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    let json_type = HeaderValue::from_static("application/json");
    match reply.body {
        ReplyBody::Empty => {}
        ReplyBody::Json(v) => {
            out.headers_mut().entry("content-type").or_insert(json_type);
            *out.body_mut() = HttpBody::from(v.to_string());
        }
        ReplyBody::JsonText(text) => {
            out.headers_mut().entry("content-type").or_insert(json_type);
            *out.body_mut() = HttpBody::from(text);
        }
        ReplyBody::Bytes(b) => *out.body_mut() = HttpBody::from(b),
        ReplyBody::Stream(s) => *out.body_mut() = HttpBody::from_stream(s),
        ReplyBody::WebSocket(task) => {
            return match upgrade {
                Some(up) => up.protocols(["binary"]).on_upgrade(task),
                None => {
                    *out.status_mut() = StatusCode::BAD_REQUEST;
                    let body =
                        json!({"error": {"code": 400, "title": "Bad Request", "message": "This must be a WebSocket request."}});
                    *out.body_mut() = HttpBody::from(body.to_string());
                    out
                }
            };
        }
    }
    out
}
