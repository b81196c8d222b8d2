//! The part of etcd's v3 protocol that this crate speaks: messages with their field numbers, and how a call is made.
//!
//! Written by hand from etcd's `rpc.proto` and `kv.proto`, whose numbers never change. A oneof is written as optional fields of
//! which one is set, and an enum as its number: on the wire they are the same.
use futures_util::stream::{self, StreamExt};
use prost::Message;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub(crate) const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
pub(crate) const MEMBER_REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
pub(crate) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
pub(crate) const MEMBER_PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(crate) const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
pub(crate) const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
pub(crate) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// A message of the protocol.
pub(crate) trait Wire: Message + Default + Clone + 'static {}
impl<T: Message + Default + Clone + 'static> Wire for T {}

fn client(channel: Channel) -> Grpc<Channel> {
    // The server bounds what a request may hold; an answer may be a page of large rows.
    Grpc::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

/// A member that is cut off from its leader shall refuse at once rather than let the call wait.
fn require_leader(metadata: &mut MetadataMap) {
    metadata.insert("hasleader", MetadataValue::from_static("true"));
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))
}

pub(crate) async fn unary<Req: Wire, Res: Wire>(channel: Channel, path: &'static str, request: Req) -> Result<Res, Status> {
    let mut grpc = client(channel);
    ready(&mut grpc).await?;
    let mut request = Request::new(request);
    require_leader(request.metadata_mut());
    let codec = ProstCodec::<Req, Res>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// Sends one message on a stream that stays open, and gives the answers.
pub(crate) async fn duplex<Req: Wire + Sync, Res: Wire>(
    channel: Channel,
    path: &'static str,
    first: Req,
) -> Result<Streaming<Res>, Status> {
    let mut grpc = client(channel);
    ready(&mut grpc).await?;
    let mut request = Request::new(stream::iter([first]).chain(stream::pending()));
    require_leader(request.metadata_mut());
    let codec = ProstCodec::<Req, Res>::default();
    Ok(grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

pub(crate) async fn download<Req: Wire, Res: Wire>(
    channel: Channel,
    path: &'static str,
    request: Req,
) -> Result<Streaming<Res>, Status> {
    let mut grpc = client(channel);
    ready(&mut grpc).await?;
    let codec = ProstCodec::<Req, Res>::default();
    Ok(grpc.server_streaming(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "1")]
    pub cluster: u64,
    #[prost(uint64, tag = "2")]
    pub member: u64,
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub created: i64,
    #[prost(int64, tag = "3")]
    pub modified: i64,
    // Copied out of the message: rows that share its buffer would keep all of it for as long as one of them lives.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    #[prost(int64, tag = "10")]
    pub min_modified: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: bytes::Bytes,
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Op {
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeRequest>,
    #[prost(message, optional, tag = "2")]
    pub put: Option<PutRequest>,
    #[prost(message, optional, tag = "3")]
    pub delete: Option<DeleteRequest>,
}

impl From<RangeRequest> for Op {
    fn from(range: RangeRequest) -> Self {
        Self { range: Some(range), ..Self::default() }
    }
}
impl From<PutRequest> for Op {
    fn from(put: PutRequest) -> Self {
        Self { put: Some(put), ..Self::default() }
    }
}
impl From<DeleteRequest> for Op {
    fn from(delete: DeleteRequest) -> Self {
        Self { delete: Some(delete), ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OpResponse {
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeResponse>,
}

pub(crate) const EQUAL: i32 = 0;
pub(crate) const LESS: i32 = 2;
pub(crate) const CREATED: i32 = 1;
pub(crate) const MODIFIED: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(int64, optional, tag = "5")]
    pub created: Option<i64>,
    #[prost(int64, optional, tag = "6")]
    pub modified: Option<i64>,
    #[prost(bytes = "vec", tag = "64")]
    pub end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<Op>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<OpResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CompactRequest {
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Answer when the space is really free.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start: i64,
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compacted: i64,
    #[prost(string, tag = "6")]
    pub reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<WatchEvent>,
}

pub(crate) const DELETE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchEvent {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// A request that only names a lease.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseName {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// The answer to every question about a lease.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseAnswer {
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberRecord {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, repeated, tag = "3")]
    pub peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    pub learner: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberAddRequest {
    #[prost(string, repeated, tag = "1")]
    pub peer_urls: Vec<String>,
    #[prost(bool, tag = "2")]
    pub learner: bool,
}

/// A request that only names a member.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberName {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// What the answers to all questions about members have in common; that to an addition has them elsewhere, and nobody reads it there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    #[prost(uint64, tag = "6")]
    pub term: u64,
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    #[prost(int64, tag = "9")]
    pub db_in_use: i64,
    #[prost(bool, tag = "10")]
    pub learner: bool,
}

pub(crate) const ALARM_GET: i32 = 0;
pub(crate) const ALARM_DEACTIVATE: i32 = 2;
pub(crate) const ALARM_NO_SPACE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmRequest {
    #[prost(int32, tag = "1")]
    pub action: i32,
    #[prost(uint64, tag = "2")]
    pub member: u64,
    #[prost(int32, tag = "3")]
    pub alarm: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmRecord {
    #[prost(uint64, tag = "1")]
    pub member: u64,
    #[prost(int32, tag = "2")]
    pub alarm: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmResponse {
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<AlarmRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotPart {
    #[prost(uint64, tag = "2")]
    pub remaining: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub blob: bytes::Bytes,
}
