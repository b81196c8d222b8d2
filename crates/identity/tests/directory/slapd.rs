//! A real directory: slapd of OpenLDAP on a port and in a directory of its own.
use ldap3::{LdapConnAsync, Mod};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub(crate) const SUFFIX: &str = "dc=example,dc=org";
pub(crate) const PASSWORD: &str = "password of the directory's administrator";

const CONFIG: &str = r#"
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/cert.pem
TLSCertificateKeyFile DIR/key.pem
database mdb
maxsize 67108864
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw "password of the directory's administrator"
directory DIR/data
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"#;

/// A directory with the users `ada`, `bob`, `eve` (disabled) and two groups. It ends when it is dropped.
pub(crate) struct Slapd {
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
    tls: bool,
    child: Child,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tool(name: &str) -> Command {
    let path = format!("/usr/sbin/{name}");
    assert!(Path::new(&path).exists(), "{path} is missing; run make dev-deps.");
    Command::new(path)
}

/// A user's entry. The password is `password of NAME`.
pub(crate) fn user(uid: &str, name: &str, more: &str) -> String {
    format!(
        "dn: uid={uid},ou=People,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {name}\nsn: {name}\nmail: {uid}@example.org\n\
         userPassword: password of {name}\n{more}\n"
    )
}

fn people() -> String {
    let mut out = format!(
        "dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
         dn: ou=People,{SUFFIX}\nobjectClass: organizationalUnit\nou: People\n\n\
         dn: ou=Groups,{SUFFIX}\nobjectClass: organizationalUnit\nou: Groups\n\n"
    );
    out += &user("u1", "ada", "employeeType: TRUE\nroomNumber: 7\n");
    out += &user("u2", "bob", "employeeType: TRUE\n");
    out += &user("u3", "eve", "employeeType: FALSE\n");
    for (name, members) in [("staff", &["u1", "u2"][..]), ("wheel", &["u1"])] {
        let _ = writeln!(out, "dn: cn={name},ou=Groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\ndescription: All {name}");
        members.iter().for_each(|uid| {
            let _ = writeln!(out, "member: uid={uid},ou=People,{SUFFIX}");
        });
        out.push('\n');
    }
    out
}

/// An authority, and a certificate for 127.0.0.1 by it.
fn certificates(dir: &Path) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "An authority of a test");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.pem"), pem).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

impl Slapd {
    pub(crate) fn start() -> Self {
        Self::with("", "ldap")
    }
    /// With more entries, over `ldap` or `ldaps`.
    pub(crate) fn with(more: &str, scheme: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir(at.join("data")).unwrap();
        certificates(at);
        let config = at.join("slapd.conf");
        fs::write(&config, CONFIG.replace("DIR", at.to_str().unwrap())).unwrap();
        fs::write(at.join("people.ldif"), people() + more).unwrap();
        let loaded = tool("slapadd").arg("-q").arg("-f").arg(&config).arg("-l").arg(at.join("people.ldif")).output().unwrap();
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        for _ in 0..5 {
            // The port may be taken between the look and the use.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut slapd = tool("slapd");
            slapd.args(["-d", "0", "-h", &format!("{scheme}://127.0.0.1:{port}"), "-f"]).arg(&config);
            let mut child = slapd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            if is_up(&mut child, port) {
                return Self { port, dir, tls: scheme == "ldaps", child };
            }
            child.kill().ok();
            child.wait().ok();
        }
        panic!("slapd does not start")
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "ldaps" } else { "ldap" }, self.port)
    }

    /// What a domain is told of it; `more` goes into the group `ldap`.
    pub(crate) fn config(&self, more: Value) -> Value {
        let mut ldap = json!({
            "url": self.url(), "user": format!("cn=admin,{SUFFIX}"), "password": PASSWORD, "suffix": SUFFIX,
            "user_tree_dn": format!("ou=People,{SUFFIX}"), "group_tree_dn": format!("ou=Groups,{SUFFIX}"),
            "user_id_attribute": "uid", "user_name_attribute": "cn", "group_name_attribute": "cn",
            "user_enabled_attribute": "employeeType", "tls_cacertfile": self.dir.path().join("ca.pem"),
        });
        ldap.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        json!({"config": {"identity": {"driver": "ldap"}, "ldap": ldap}})
    }

    async fn admin(&self) -> ldap3::Ldap {
        let (connection, mut ldap) = LdapConnAsync::new(&self.url()).await.unwrap();
        tokio::spawn(connection.drive());
        ldap.simple_bind(&format!("cn=admin,{SUFFIX}"), PASSWORD).await.unwrap().success().unwrap();
        ldap
    }
    pub(crate) async fn replace(&self, dn: &str, attribute: &str, values: &[&str]) {
        let change = Mod::Replace(attribute.to_owned(), values.iter().map(|v| (*v).to_owned()).collect::<HashSet<_>>());
        self.admin().await.modify(&format!("{dn},{SUFFIX}"), vec![change]).await.unwrap().success().unwrap();
    }
    pub(crate) async fn delete(&self, dn: &str) {
        self.admin().await.delete(&format!("{dn},{SUFFIX}")).await.unwrap().success().unwrap();
    }
}

fn is_up(child: &mut Child, port: u16) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}
