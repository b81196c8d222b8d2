//! Where chassis reach the southbound database: a relay (ovsdb(7)) of this controller's member, which holds each of them to what is its own.
//!
//! It alone takes nodes' certificates. Who comes with one has OVN's role `ovn-controller`: northd says in the database what that role may
//! write (ovn-architecture(7), "RBAC"), and the relay refuses everything else before the member hears of it. A row of a chassis belongs to
//! the certificate whose common name is the chassis's, and so a stolen one changes nothing of another host.
//!
//! Only a remote that is named in a database can have a role, so the relay has one of its own for that. It has tables for roles, too, which
//! are empty: nobody with a role may change it.
use super::{
    Controller, Database,
    member::{Member, passive},
};
use crate::ovn::{Error, daemon::daemon};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf};
use supervise::{Daemon, Ready, run};

/// Where chassis come.
pub(super) const PORT: u16 = 6642;
/// As northd calls it.
const ROLE: &str = "ovn-controller";
const NAME: &str = "relay";
const DATABASE: &str = "Drover_Relay";

pub(super) struct Relay<'a>(pub(super) &'a Controller);

impl Relay<'_> {
    fn path(&self, extension: &str) -> PathBuf {
        self.0.run_dir.join(format!("{NAME}.{extension}"))
    }

    /// Makes its own database, if it is not there.
    pub(super) async fn ensure_file(&self) -> Result<(), Error> {
        let (path, fresh, schema) = (self.path("db"), self.path("db.new"), self.path("ovsschema"));
        if path.exists() {
            return Ok(());
        }
        let _ = std::fs::remove_file(&fresh);
        std::fs::write(&schema, self::schema().to_string()).map_err(|source| Error::File { path: schema.clone(), source })?;
        let file = fresh.display().to_string();
        run(&["ovsdb-tool", "create", &file, &schema.display().to_string()]).await?;
        run(&["ovsdb-tool", "transact", &file, &listen(SocketAddr::new(self.0.address, PORT)).to_string()]).await?;
        std::fs::rename(&fresh, &path).map_err(|source| Error::File { path, source })
    }

    pub(super) fn daemon(&self) -> Daemon {
        let source = Member { at: self.0, database: Database::Southbound }.socket();
        let mut argv = vec!["ovsdb-server".to_owned(), format!("--remote=db:{DATABASE},Config,connections")];
        argv.extend(self.0.certificates.machine.arguments());
        argv.push(format!("relay:{}:unix:{}", Database::Southbound.name(), source.display()));
        argv.push(self.path("db").display().to_string());
        daemon(&self.0.run_dir, self.0.netns.clone(), NAME, argv).ready(Ready::Socket(self.path("ctl")))
    }
}

/// What ovsdb-server reads of a remote, and tables for roles as OVN's databases have them (ovsdb-server(1), "Remotes"; ovsdb/rbac.c).
fn schema() -> Value {
    let text = json!({"type": "string"});
    let map = |value: Value| json!({"type": {"key": "string", "value": value, "min": 0, "max": "unlimited"}});
    let many = |of: Value| json!({"type": {"key": of, "min": 0, "max": "unlimited"}});
    let connections = many(json!({"type": "uuid", "refTable": "Connection"}));
    let permissions = json!({"type": "uuid", "refTable": "RBAC_Permission", "refType": "weak"});
    json!({"name": DATABASE, "version": "1.0.0", "tables": {
        "Config": {"columns": {"connections": connections}, "maxRows": 1, "isRoot": true},
        "Connection": {"columns": {"target": text, "role": text}, "indexes": [["target"]]},
        "RBAC_Role": {"columns": {"name": text, "permissions": map(permissions)}, "isRoot": true},
        "RBAC_Permission": {"columns": {
            "table": text, "authorization": many(json!("string")), "insert_delete": {"type": "boolean"}, "update": many(json!("string")),
        }, "isRoot": true},
    }})
}

fn listen(at: SocketAddr) -> Value {
    json!([DATABASE,
        {"op": "insert", "table": "Connection", "uuid-name": "here", "row": {"target": passive(at), "role": ROLE}},
        {"op": "insert", "table": "Config", "row": {"connections": ["named-uuid", "here"]}},
    ])
}
