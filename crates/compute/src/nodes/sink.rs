//! Takes the reports of nodes: one transaction per batch. Twice is once, and what is old does not count.
use super::{Nodes, effects, host, lock, snapshot, steps::Told, volumes};
use crate::{
    resources::Server,
    server::{plan, records},
};
use api::{Cx, Result};
use assign::{GuestState, HostReport, PasswordReport, Report, ServerReport, SnapshotReport, VolumeReport};
use resource::engine;
use std::sync::Arc;
use store::Tx;
use tokio::time::Instant;

/// What a report asks of the store.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Host(HostReport),
    /// With the steps that led to it, in words.
    Server(ServerReport, String),
    Snapshot(SnapshotReport),
    Password(PasswordReport),
    Volume(VolumeReport),
    Tell(Told),
}

impl Nodes {
    /// Returns when the reports are durable.
    pub(super) async fn take(&self, host: &str, reports: Vec<Report>) -> Result<()> {
        let settled: Vec<String> = reports
            .iter()
            .filter_map(|r| match r {
                Report::Server(s) if s.state != GuestState::Building => Some(s.id.clone()),
                Report::Server(_) | Report::Host(_) | Report::Snapshot(_) | Report::Password(_) | Report::Volume(_) => None,
            })
            .collect();
        let work = self.work(host, reports);
        self.carry_out(host, work).await?;
        let mut steps = lock(&self.steps);
        settled.iter().for_each(|id| steps.forget(id));
        Ok(())
    }

    fn work(&self, host: &str, reports: Vec<Report>) -> Vec<Work> {
        let mut steps = lock(&self.steps);
        let now = Instant::now();
        let of = |report: Report| match report {
            Report::Host(h) => Some(Work::Host(h)),
            Report::Snapshot(s) => Some(Work::Snapshot(s)),
            Report::Password(p) => Some(Work::Password(p)),
            Report::Volume(v) => self.is_news(host, &v).then_some(Work::Volume(v)),
            // Work that goes on changes no row.
            Report::Server(s) if s.state == GuestState::Building => steps.note(host, &s, now).map(Work::Tell),
            Report::Server(s) => {
                let summary = steps.summary(&s.id, now);
                Some(Work::Server(s, summary))
            }
        };
        reports.into_iter().filter_map(of).collect()
    }

    /// All in one transaction; when one is refused, each in its own, so that it does not hold up the others.
    pub(super) async fn carry_out(&self, host: &str, work: Vec<Work>) -> Result<()> {
        if work.is_empty() {
            return Ok(());
        }
        let (work, host): (Arc<[Work]>, Arc<str>) = (work.into(), host.into());
        let first = match self.commit(&host, work.clone()).await {
            Ok(()) => return Ok(()),
            Err(e) if e.kind == api::ErrorKind::Unavailable || work.len() == 1 => return Err(e),
            Err(e) => e,
        };
        tracing::warn!(node = %host, error = %first, "A batch of reports was refused; each is taken alone");
        let mut failed = Ok(());
        for one in work.iter() {
            if let Err(e) = self.commit(&host, Arc::new([one.clone()])).await {
                tracing::warn!(node = %host, report = ?one, error = %e, "A report was refused; the node will repeat it");
                failed = Err(e);
            }
        }
        failed
    }

    async fn commit(&self, host: &Arc<str>, work: Arc<[Work]>) -> Result<()> {
        let (cx, host, seat) = (self.cx()?, host.clone(), self.seat());
        self.db.transact(move |tx| work.iter().try_for_each(|w| one(tx, &cx, &host, &seat, w))).await?;
        Ok(())
    }
}

fn one(tx: &mut Tx<'_>, cx: &Cx, host: &str, seat: &str, work: &Work) -> Result<()> {
    match work {
        Work::Host(report) => host::seen(tx, host, seat, report),
        Work::Server(report, steps) => server(tx, cx, host, report, steps),
        Work::Snapshot(report) => snapshot::done(tx, cx, host, report),
        Work::Password(report) => password(tx, host, report),
        Work::Volume(report) => volumes::seen(tx, cx, host, report),
        Work::Tell(told) => tell(tx, host, told),
    }
}

/// A node speaks only for servers that are placed on it.
fn server(tx: &mut Tx<'_>, cx: &Cx, host: &str, report: &ServerReport, steps: &str) -> Result<()> {
    let Some(mut server) = resource::load_any::<Server>(tx, &report.id)?.filter(|s| s.host.as_deref() == Some(host)) else {
        return Ok(());
    };
    let before = server.clone().into_map()?;
    let deleting = server.deleting();
    if report.epoch == server.epoch {
        // A server that leaves its node to come back keeps what is wanted.
        let stays = report.state == GuestState::Gone && !deleting;
        let wanted = |row: &std::sync::Arc<resource::Row>| stays && row.field("wanted") == true;
        let keep = volumes::of_server(tx, &report.id).iter().filter(|r| wanted(r)).map(|r| r.id().to_owned()).collect();
        volumes::plugged(tx, host, report, &keep);
    }
    let done = plan::on_report(&mut server.body, deleting, report, tx.now);
    let state = match report.state {
        GuestState::Building => "building",
        GuestState::Running => "running",
        GuestState::Paused => "paused",
        GuestState::Stopped => "stopped",
        GuestState::Crashed => "crashed",
        GuestState::Failed => "failed",
        GuestState::Gone => "gone",
    };
    effects::carry_out(tx, cx, server, &before, done, &format!("Node {host}: {state}{steps}"))
}

/// The node refuses a second password, so what it reports is the one that its guest was told is kept.
fn password(tx: &mut Tx<'_>, host: &str, report: &PasswordReport) -> Result<()> {
    let Some(mut server) = resource::load_any::<Server>(tx, &report.server_id)? else { return Ok(()) };
    let is_its_node = server.host.as_deref() == Some(host) && server.epoch == report.epoch;
    if !is_its_node || server.password == report.password {
        return Ok(());
    }
    server.password.clone_from(&report.password);
    let request = server.request_id().to_owned();
    records::save(tx, server, &request)?;
    Ok(())
}

fn tell(tx: &mut Tx<'_>, host: &str, told: &Told) -> Result<()> {
    let Some(server) = resource::load_any::<Server>(tx, &told.server)? else { return Ok(()) };
    if server.host.as_deref() == Some(host) && server.epoch == told.epoch {
        engine::tell(tx, &told.server, server.request_id(), &told.text);
    }
    Ok(())
}
