//! Do all members hold the same?
//!
//! etcd can compare them itself when a member starts, but that member does not serve before the others have answered: of a cluster that
//! starts as a whole, each member waits for those that wait for it. So they are compared while they serve.
use super::{Cluster, Error, cluster::alone};
use crate::{client::SHORT, wire};
use prost::Message;
use std::time::Duration;
use tokio::time::sleep;

const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
/// A member reads all that it has.
const HASH: Duration = Duration::from_secs(60);
/// Until every member that is well has what the first one had.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Members that compact their history at this moment differ, and do not for long.
const ROUNDS: usize = 3;
const BETWEEN: Duration = Duration::from_secs(5);

/// <https://github.com/etcd-io/etcd/blob/v3.4.23/etcdserver/etcdserverpb/rpc.proto>
#[derive(Clone, PartialEq, Message)]
struct HashRequest {
    #[prost(int64, tag = "1")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct HashResponse {
    #[prost(uint32, tag = "2")]
    hash: u32,
    /// The history before it is not in the hash.
    #[prost(int64, tag = "3")]
    compacted: i64,
}

#[derive(Clone, Debug)]
struct Held {
    endpoint: String,
    hash: u32,
    compacted: i64,
}

impl Cluster {
    /// Endpoints that do not hold what most of them do, again and again: a file is damaged. One that does not answer is not judged.
    pub async fn damaged(&self) -> Result<Vec<String>, Error> {
        let mut suspects = odd(&self.held().await?);
        for _ in 1..ROUNDS {
            if suspects.is_empty() {
                break;
            }
            sleep(BETWEEN).await;
            let now = odd(&self.held().await?);
            suspects.retain(|endpoint| now.contains(endpoint));
        }
        Ok(suspects)
    }

    async fn held(&self) -> Result<Vec<Held>, Error> {
        let nothing = wire::RangeRequest { key: vec![0], count_only: true, ..Default::default() };
        let now: wire::RangeResponse = self.client.read(wire::RANGE, nothing, SHORT).await.map_err(Error::call)?;
        let request = HashRequest { revision: now.header.map_or(0, |h| h.revision) };
        sleep(CATCH_UP).await;
        let mut all = Vec::new();
        for endpoint in self.client.endpoints().iter() {
            let url = endpoint.url.clone();
            match alone::<_, HashResponse>(&url, endpoint.channel(), HASH_KV, request.clone(), HASH).await {
                Ok(HashResponse { hash, compacted }) => all.push(Held { endpoint: url, hash, compacted }),
                Err(e) => tracing::debug!(error = %base::chain(&e), "{url} does not tell what it holds"),
            }
        }
        Ok(all)
    }
}

/// Those that at least half of the comparable members disagree with.
fn odd(all: &[Held]) -> Vec<String> {
    let is_odd = |one: &&Held| {
        let peers = || all.iter().filter(|h| h.compacted == one.compacted);
        let (count, agree) = (peers().count(), peers().filter(|h| h.hash == one.hash).count());
        count > 1 && 2 * agree <= count
    };
    all.iter().filter(is_odd).map(|h| h.endpoint.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_differs_from_most_is_odd() {
        let held = |all: &[(u32, i64)]| {
            let one = |(i, &(hash, compacted)): (usize, &(u32, i64))| Held { endpoint: i.to_string(), hash, compacted };
            odd(&all.iter().enumerate().map(one).collect::<Vec<_>>())
        };
        assert!(held(&[(1, 0), (1, 0), (1, 0)]).is_empty());
        assert_eq!(held(&[(1, 0), (2, 0), (1, 0)]), ["1"]);
        assert_eq!(held(&[(1, 0), (2, 0)]), ["0", "1"], "nobody knows which of two is right");
        assert!(held(&[(1, 0), (2, 5), (1, 0)]).is_empty(), "other history, other hash");
        assert!(held(&[(1, 0)]).is_empty());
    }
}
