//! What requests there were, how they ended and how long they took; and `GET /metrics`, where all figures of the process are read.
//!
//! Figures are by service, method and path as it is written in the table of routes: what a request named is in none of them.
use crate::Route;
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE},
};
use base::metrics::{Exporter, Exposition, Histogram, Kind, MEDIA_TYPE};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// A front door puts one of these into what it passes on.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Of one route.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    classes: [AtomicU64; CLASSES.len()],
    took: Histogram,
}

impl Meter {
    fn note(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.took.observe(took);
    }
}

struct Known {
    service: &'static str,
    method: &'static str,
    path: String,
    meter: Arc<Meter>,
}

/// Of all routes.
#[derive(Default)]
pub(crate) struct Meters {
    known: Mutex<Vec<Known>>,
    in_flight: AtomicUsize,
    left: AtomicU64,
}

impl Meters {
    /// A meter for a route; its path is the whole one.
    pub(crate) fn of(&self, service: &'static str, route: &Route, path: &str) -> Arc<Meter> {
        self.add(service, route.method, path)
    }

    /// A meter for what is no route of a service.
    pub(crate) fn lost(&self, service: &'static str) -> Arc<Meter> {
        self.add(service, "", "")
    }

    fn add(&self, service: &'static str, method: &'static str, path: &str) -> Arc<Meter> {
        let meter = Arc::<Meter>::default();
        let known = Known { service, method, path: path.to_owned(), meter: meter.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        meter
    }

    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        UnderWay { meters: self.clone(), answered: false }
    }

    pub(crate) fn collect(&self, out: &mut Exposition) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Most routes are not used: no lines for them.
        let used: Vec<&Known> = known.iter().filter(|k| k.meter.took.count() > 0).collect();
        out.family("drover_http_requests_total", Kind::Counter, "Requests that were answered.");
        for k in &used {
            for (class, count) in CLASSES.iter().zip(&k.meter.classes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("service", k.service), ("method", k.method), ("route", k.path.as_str()), ("status", class)];
                    out.sample(&labels, count);
                }
            }
        }
        out.family("drover_http_request_duration_seconds", Kind::Histogram, "From a request's head to its answer's.");
        for k in &used {
            out.histogram(&[("service", k.service), ("method", k.method), ("route", &k.path)], &k.meter.took);
        }
        out.family("drover_http_requests_in_flight", Kind::Gauge, "Requests that have no answer yet.");
        out.sample(&[], self.in_flight.load(Ordering::Relaxed));
        out.family("drover_http_requests_left_total", Kind::Counter, "Requests whose client left before the answer.");
        out.sample(&[], self.left.load(Ordering::Relaxed));
    }
}

/// A request that has no answer yet.
pub(crate) struct UnderWay {
    meters: Arc<Meters>,
    answered: bool,
}
impl UnderWay {
    pub(crate) fn answered(mut self, meter: &Meter, status: u16, took: Duration) {
        self.answered = true;
        meter.note(status, took);
    }
}
impl Drop for UnderWay {
    fn drop(&mut self) {
        self.meters.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.meters.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `GET /metrics`: for those who reach this process itself. It asks nothing of the store, so it answers when nothing else does.
pub(crate) async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> Response<Body> {
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        let mut lost = Response::new(Body::from("Figures are not told through a front door; ask the process itself.\n"));
        *lost.status_mut() = StatusCode::NOT_FOUND;
        return lost;
    }
    let mut out = Response::new(Body::from(exporter.text()));
    out.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    out
}
