//! A server that speaks S3, as a process of the test's own.
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use testkit::Client;
use web::s3::{Bucket, Credentials, Place};

pub(crate) const SECRET: &str = "the-secret-key-of-the-object-store";

/// It ends with this.
pub(crate) struct ObjectStore {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) credentials: PathBuf,
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl ObjectStore {
    /// With a bucket `images`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/moto");
        let mut moto = Command::new(script);
        let mut child = moto.args(["-H", "127.0.0.1", "-p", "0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let endpoint = loop {
            let line = lines.next().expect("moto says where it runs").unwrap();
            if let Some((_, url)) = line.split_once("Running on ") {
                break url.trim().to_owned();
            }
        };
        // It logs every request, and would wait for somebody to read that.
        std::thread::spawn(move || lines.for_each(drop));
        let credentials = dir.join("object-store.key");
        std::fs::write(&credentials, format!("the-access-key\n{SECRET}\n")).unwrap();
        let it = Self { child, endpoint, credentials };
        Client::new(&it.endpoint).send_bytes("PUT", "/images", "application/xml", "".into()).await.expect(200);
        it
    }

    pub(crate) fn bucket(&self) -> Bucket {
        let place = Place { endpoint: self.endpoint.clone(), bucket: "images".into(), region: "us-east-1".into(), ca: None };
        Bucket::open(place, Credentials::read(&self.credentials).unwrap()).unwrap()
    }

    /// Keys of objects.
    pub(crate) async fn objects(&self) -> Vec<String> {
        self.bucket().list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// Uploads that nobody has finished.
    pub(crate) async fn unfinished(&self) -> usize {
        self.bucket().unfinished("").await.unwrap().len()
    }
}
