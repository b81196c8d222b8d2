//! A project's volumes and what belongs to them, in the statuses that actions want; and the types that all may use.
use super::{Office, Things};
use crate::bed::SERVERS;
use serde_json::{Value, json};
use testkit::Answer;
use testkit::until;

fn v3(path: &str) -> String {
    format!("/volume/v3/{path}")
}

/// The storage of the one host there is.
const HOST: &str = "host-0@nbd";

pub(super) async fn furnish_common(office: &Office<'_>, things: &mut Things) {
    let kind = |name: &str| json!({ "name": name });
    things.put("spare-type", office.make(&v3("types"), "volume_type", kind("spare")).await);
    let encrypted = office.make(&v3("types"), "volume_type", kind("encrypted")).await;
    let how = json!({"encryption": {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256}});
    let made = office.admin.post(&v3(&format!("types/{encrypted}/encryption")), how).await.expect(200);
    things.put("encryption", made.text("/encryption/encryption_id"));
    things.put("encrypted-type", encrypted);
    things.put("cipher", "cipher");
    things.put("encryption_key_id", "encryption_key_id");
    let limits = json!({"name": "limits", "consumer": "front-end", "k": "v"});
    things.put("qos-specs", office.make(&v3("qos-specs"), "qos_specs", limits).await);
    let group_type = json!({"name": "kept", "group_specs": {"k": "v"}});
    things.put("group_types", office.make(&v3("group_types"), "group_type", group_type).await);
    let spare = json!({"name": "spare", "group_specs": {"k": "v"}});
    things.put("spare-group-type", office.make(&v3("group_types"), "group_type", spare).await);
    things.put("group_specs", "k");
    things.put("extra_specs", "scope:k");
    things.put("volume:os-services", "disable-log-reason");
    things.put("volume:os-hosts", HOST);
    things.put("capabilities", HOST);
}

impl Office<'_> {
    async fn reaches(&self, path: &str, kind: &str, status: &str) {
        let is = |a: &Answer| a.at(&format!("/{kind}/status")) == status;
        until(&format!("{path} is {status}"), || self.admin.get(path), is).await;
    }
    /// Of 1 GiB, and there.
    async fn volume(&self, more: Value) -> String {
        let mut volume = json!({"size": 1, "name": "mine", "metadata": {"k": "v"}});
        volume.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.make(&v3("volumes"), "volume", volume).await;
        self.reaches(&v3(&format!("volumes/{id}")), "volume", "available").await;
        id
    }
    async fn act(&self, on: &str, action: Value) {
        let answer = self.admin.post(&v3(&format!("{on}/action")), action.clone()).await;
        assert!(answer.status < 300, "{action} on {on}: {} {}", answer.status, answer.body);
    }
    /// A snapshot of a volume of its own.
    async fn snapshot(&self, volume: &str) -> String {
        let body = json!({"volume_id": volume, "name": "mine", "metadata": {"k": "v"}});
        let id = self.make(&v3("snapshots"), "snapshot", body).await;
        self.reaches(&v3(&format!("snapshots/{id}")), "snapshot", "available").await;
        id
    }
}

/// What the user `mine` makes, with a private type that `office` gave to the project.
pub(super) async fn furnish(mine: &Office<'_>, office: &Office<'_>, server: &str, things: &mut Things) {
    let project = things.get("projects").unwrap();
    let name = format!("type of {project}");
    let kind = json!({"name": name, "os-volume-type-access:is_public": false, "extra_specs": {"scope:k": "v"}});
    let kind = office.make(&v3("types"), "volume_type", kind).await;
    office.act(&format!("types/{kind}"), json!({"addProjectAccess": {"project": project}})).await;
    let default = json!({"default_type": {"volume_type": "__DEFAULT__"}});
    office.admin.put(&v3(&format!("default-types/{project}")), default).await.expect(200);
    things.put("default-types", &project);

    let plain = mine.volume(json!({})).await;
    mine.act(&format!("volumes/{plain}"), json!({"os-set_image_metadata": {"metadata": {"k": "v"}}})).await;
    things.put("volumes", &plain);
    things.put("os-volumes", plain);
    things.put("volume-bootable", mine.volume(json!({"imageRef": things.get("images").unwrap()})).await);
    let copied = mine.volume(json!({})).await;
    let snapshot = mine.snapshot(&copied).await;
    things.put("volume-with-snapshot", copied);
    things.put("snapshots", &snapshot);
    things.put("os-snapshots", snapshot);
    for (key, status) in [("volume-attaching", "attaching"), ("volume-detaching", "detaching")] {
        let id = mine.volume(json!({})).await;
        office.act(&format!("volumes/{id}"), json!({"os-reset_status": {"status": status}})).await;
        things.put(key, id);
    }
    attachments(mine, server, things).await;
    groups(mine, &kind, things).await;
    let given = mine.volume(json!({})).await;
    let transfer = mine.admin.post(&v3("volume-transfers"), json!({"transfer": {"volume_id": given}})).await.expect(202);
    for key in ["volume-transfers", "os-volume-transfer"] {
        things.put(key, transfer.text("/transfer/id"));
    }
    things.put("auth_key", transfer.text("/transfer/auth_key"));
    // Nobody has room for this one, which a message tells.
    let large = json!({"volume": {"size": 1_000_000}});
    let large = mine.admin.post(&v3("volumes"), large).await.expect(202).text("/volume/id");
    let told = mine.admin.get(&v3(&format!("messages?resource_uuid={large}"))).await.expect(200);
    things.put("messages", told.text("/messages/0/id"));
    things.put("volume:types", kind);
}

/// A server's, and one that was asked for here.
async fn attachments(mine: &Office<'_>, server: &str, things: &mut Things) {
    let plugged = mine.volume(json!({})).await;
    let body = json!({"volumeAttachment": {"volumeId": plugged}});
    mine.admin.post(&format!("{SERVERS}/{server}/os-volume_attachments"), body).await.expect(200);
    let path = v3(&format!("volumes/{plugged}"));
    mine.reaches(&path, "volume", "in-use").await;
    let shown = mine.admin.get(&path).await.expect(200);
    things.put("server-attachment", shown.text("/volume/attachments/0/attachment_id"));
    things.put("os-volume_attachments", &plugged);
    things.put("volume-in-use", plugged);

    let asked = mine.volume(json!({})).await;
    let attachment = json!({"volume_uuid": asked, "instance_uuid": base::id::uuid()});
    let id = mine.make(&v3("attachments"), "attachment", attachment).await;
    let connector =
        json!({"attachment": {"connector": {"host": "h", "ip": "192.0.2.7", "mountpoint": "/dev/vdb", "mode": "rw"}}});
    mine.admin.put(&v3(&format!("attachments/{id}")), connector).await.expect(200);
    things.put("attachments", id);
}

/// A group with a volume, and another one with a snapshot.
async fn groups(mine: &Office<'_>, kind: &str, things: &mut Things) {
    let group_type = things.get("group_types").unwrap();
    for (group_key, volume_key) in [("volume:groups", "volume-in-group"), ("group-with-snapshot", "volume-in-other-group")] {
        let body = json!({"group": {"name": "mine", "group_type": group_type, "volume_types": [kind]}});
        let group = mine.admin.post(&v3("groups"), body).await.expect(202).text("/group/id");
        things.put(volume_key, mine.volume(json!({"volume_type": kind, "group_id": group})).await);
        things.put(group_key, group);
    }
    things.put("volume-without-group", mine.volume(json!({ "volume_type": kind })).await);
    let copied = json!({"group_snapshot": {"group_id": things.get("group-with-snapshot").unwrap(), "name": "mine"}});
    let set = mine.admin.post(&v3("group_snapshots"), copied).await.expect(202).text("/group_snapshot/id");
    mine.reaches(&v3(&format!("group_snapshots/{set}")), "group_snapshot", "available").await;
    things.put("group_snapshots", set);
}
