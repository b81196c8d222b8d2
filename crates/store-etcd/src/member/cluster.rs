//! The cluster through any of its members: who belongs to it, how they are, and their upkeep.
use super::Error;
use crate::{
    Tls,
    client::{Client, SHORT, WRITE},
    txn::{signed, unsigned},
    verdict::{COMPACTED, says},
    wire::{self, Wire},
};
use base::retry::Backoff;
use std::time::Duration;
use store::Revision;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

const AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// For what only works when the cluster is healthy, such as a change of its members.
const HEALTHY: Duration = Duration::from_secs(60);
/// A member answers nothing while its file is written anew, for large ones some minutes.
const DEFRAGMENT: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    pub id: u64,
    /// Empty until it has started for the first time.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// It takes part in no vote yet.
    pub learner: bool,
}
impl From<wire::MemberRecord> for MemberInfo {
    fn from(m: wire::MemberRecord) -> Self {
        let wire::MemberRecord { id, name, peer_urls, client_urls, learner } = m;
        Self { id, name, peer_urls, client_urls, learner }
    }
}

/// How one member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub endpoint: String,
    pub id: u64,
    pub version: String,
    pub leads: bool,
    pub learner: bool,
    pub term: u64,
    pub revision: Revision,
    /// Bytes of the file, and how many of them hold something.
    pub db_size: u64,
    pub db_in_use: u64,
    /// What it complains about, such as a lack of space.
    pub errors: Vec<String>,
}

/// See [`Cluster::alarms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarms {
    pub no_space: usize,
    /// Such as a damaged file.
    pub others: usize,
}

/// An etcd cluster as its operator sees it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) client: Client,
}

impl Cluster {
    pub fn new(endpoints: &[String], tls: Option<&Tls>) -> Result<Self, Error> {
        Ok(Self { client: Client::new(endpoints, tls, Duration::from_secs(6))? })
    }

    pub async fn members(&self) -> Result<Vec<MemberInfo>, Error> {
        let answer: wire::MemberListResponse =
            self.client.read(wire::MEMBER_LIST, wire::Empty {}, SHORT).await.map_err(Error::call)?;
        Ok(answer.members.into_iter().map(Into::into).collect())
    }

    /// Tells the cluster of a new member that will be reached at `peer_url`. It votes when it is promoted. Gives all members.
    pub async fn ensure_added(&self, peer_url: &str) -> Result<(MemberInfo, Vec<MemberInfo>), Error> {
        let request = wire::MemberAddRequest { peer_urls: vec![peer_url.into()], learner: true };
        let find = |members: &[MemberInfo]| members.iter().find(|m| m.peer_urls.iter().any(|u| u == peer_url)).cloned();
        let members = self.insist_until(wire::MEMBER_ADD, &request, |members| Ok(find(members).is_some())).await?;
        let me = find(&members).ok_or_else(|| Error::NoMember { who: peer_url.into() })?;
        Ok((me, members))
    }

    /// Lets a member vote, as soon as it has caught up.
    pub async fn ensure_voter(&self, id: u64) -> Result<(), Error> {
        let votes = |members: &[MemberInfo]| {
            let me = members.iter().find(|m| m.id == id).ok_or_else(|| Error::NoMember { who: format!("{id:x}") })?;
            Ok(!me.learner)
        };
        self.insist_until(wire::MEMBER_PROMOTE, &wire::MemberName { id }, votes).await?;
        Ok(())
    }

    /// Takes a member out of the cluster, if it is in. Its data are worth nothing after that.
    pub async fn ensure_removed(&self, id: u64) -> Result<(), Error> {
        let out = |members: &[MemberInfo]| Ok(!members.iter().any(|m| m.id == id));
        self.insist_until(wire::MEMBER_REMOVE, &wire::MemberName { id }, out).await?;
        Ok(())
    }

    /// Asks for a change of the members until the list shows it. etcd refuses it while it is not healthy, while another learner is on
    /// its way, or while that one has not caught up. Whether a lost answer was a yes, the list tells.
    async fn insist_until<Req: Wire>(
        &self,
        path: &'static str,
        request: &Req,
        done: impl Fn(&[MemberInfo]) -> Result<bool, Error>,
    ) -> Result<Vec<MemberInfo>, Error> {
        let until = Instant::now() + HEALTHY;
        let mut round = 0;
        loop {
            let members = self.members().await?;
            if done(&members)? {
                return Ok(members);
            }
            let changed: Result<wire::MemberListResponse, _> = self.client.write(path, request, WRITE).await;
            if let Err(failed) = changed {
                if Instant::now() >= until {
                    return Err(Error::call(failed.status().clone()));
                }
                tracing::debug!(error = %failed.status(), "etcd does not change its members yet; trying again");
                sleep(AGAIN.jittered(round)).await;
                round += 1;
            }
        }
    }

    /// How each endpoint is, in their order.
    pub async fn health(&self) -> Vec<Result<Health, Error>> {
        let mut all = Vec::new();
        for endpoint in self.client.endpoints().iter() {
            all.push(health(endpoint.url.clone(), endpoint.channel()).await);
        }
        all
    }

    /// Drops the history before `revision`.
    pub async fn ensure_compacted(&self, revision: Revision) -> Result<(), Error> {
        let request = wire::CompactRequest { revision: signed(revision), physical: true };
        match self.client.insist::<_, wire::Empty>(wire::COMPACT, &request).await {
            Ok(_) => Ok(()),
            Err(status) if says(&status, COMPACTED) => Ok(()),
            Err(status) => Err(Error::call(status)),
        }
    }

    /// Gives space back to the disk on every endpoint whose file is larger than `least` and at least `waste` of it empty (0.0 to 1.0), one
    /// after another, and takes back the alarm about it. Gives the endpoints that were done.
    pub async fn ensure_defragmented(&self, waste: f64, least: u64) -> Result<Vec<String>, Error> {
        let mut done = Vec::new();
        for endpoint in self.client.endpoints().iter() {
            let now = health(endpoint.url.clone(), endpoint.channel()).await?;
            if now.db_size < least || (now.db_in_use as f64) > (now.db_size as f64) * (1.0 - waste) {
                continue;
            }
            let _: wire::Empty = alone(&endpoint.url, endpoint.channel(), wire::DEFRAGMENT, wire::Empty {}, DEFRAGMENT).await?;
            done.push(endpoint.url.clone());
        }
        self.ensure_no_space_alarm_is_off().await?;
        Ok(done)
    }

    /// How many members complain of a lack of space, and how many of damage. Without space etcd refuses writes until an operator has
    /// made some; see [`Self::ensure_defragmented`].
    pub async fn alarms(&self) -> Result<Alarms, Error> {
        let ask = wire::AlarmRequest { action: wire::ALARM_GET, ..Default::default() };
        let answer: wire::AlarmResponse = self.client.read(wire::ALARM, ask, SHORT).await.map_err(Error::call)?;
        let no_space = answer.alarms.iter().filter(|a| a.alarm == wire::ALARM_NO_SPACE).count();
        Ok(Alarms { no_space, others: answer.alarms.len() - no_space })
    }

    /// etcd keeps refusing writes after there is space again, until it is told.
    async fn ensure_no_space_alarm_is_off(&self) -> Result<(), Error> {
        let ask = wire::AlarmRequest { action: wire::ALARM_GET, ..Default::default() };
        let alarms: wire::AlarmResponse = self.client.insist(wire::ALARM, &ask).await.map_err(Error::call)?;
        for alarm in alarms.alarms.into_iter().filter(|a| a.alarm == wire::ALARM_NO_SPACE) {
            let off = wire::AlarmRequest { action: wire::ALARM_DEACTIVATE, member: alarm.member, alarm: alarm.alarm };
            let _: wire::AlarmResponse = self.client.insist(wire::ALARM, &off).await.map_err(Error::call)?;
        }
        Ok(())
    }
}

/// A call to just this member.
pub(super) async fn alone<Req: Wire, Res: Wire>(
    url: &str,
    channel: tonic::transport::Channel,
    path: &'static str,
    request: Req,
    within: Duration,
) -> Result<Res, Error> {
    let late = |_| Error::call(Status::deadline_exceeded(format!("{url} did not answer within {within:?}")));
    timeout(within, wire::unary(channel, path, request)).await.map_err(late)?.map_err(Error::call)
}

async fn health(endpoint: String, channel: tonic::transport::Channel) -> Result<Health, Error> {
    let s: wire::StatusResponse = alone(&endpoint, channel, wire::STATUS, wire::Empty {}, Duration::from_secs(2)).await?;
    let header = s.header.unwrap_or_default();
    Ok(Health {
        endpoint,
        id: header.member,
        version: s.version,
        leads: s.leader == header.member,
        learner: s.learner,
        term: s.term,
        revision: unsigned(header.revision),
        db_size: unsigned(s.db_size),
        db_in_use: unsigned(s.db_in_use),
        errors: s.errors,
    })
}
