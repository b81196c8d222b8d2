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

/// What makes a user who may do everything with S3.
const USER: [&str; 3] = [
    "Action=CreateUser&UserName=u&Version=2010-05-08",
    "Action=PutUserPolicy&UserName=u&PolicyName=p&Version=2010-05-08&PolicyDocument=%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22\
     %3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D",
    "Action=CreateAccessKey&UserName=u&Version=2010-05-08",
];

impl ObjectStore {
    /// With a bucket `images`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let it = Self::launch(dir, None);
        it.keep_credentials("the-access-key", SECRET);
        it.make_bucket().await;
        it
    }

    /// As [`Self::start`], and it checks the signature of every request.
    pub(crate) async fn strict(dir: &Path) -> Self {
        let it = Self::launch(dir, Some("4"));
        let iam = Client::new(&it.endpoint).header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0",
        );
        let mut last = String::new();
        for form in USER {
            let answer = iam.send_bytes("POST", "/", "application/x-www-form-urlencoded", form.into()).await.expect(200);
            last = String::from_utf8(answer.bytes.to_vec()).unwrap();
        }
        let text = |name: &str| last.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
        it.keep_credentials(&text("AccessKeyId"), &text("SecretAccessKey"));
        it.make_bucket().await;
        it
    }

    fn launch(dir: &Path, unsigned: Option<&str>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/moto");
        let mut moto = Command::new(script);
        if let Some(count) = unsigned {
            moto.env("INITIAL_NO_AUTH_ACTION_COUNT", count);
        }
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
        Self { child, endpoint, credentials: dir.join("object-store.key") }
    }

    fn keep_credentials(&self, access: &str, secret: &str) {
        std::fs::write(&self.credentials, format!("{access}\n{secret}\n")).unwrap();
    }

    async fn make_bucket(&self) {
        Client::new(&self.endpoint).send_bytes("PUT", "/images", "application/xml", "".into()).await.expect(200);
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
