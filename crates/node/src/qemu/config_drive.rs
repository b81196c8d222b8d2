//! The config drive: an ISO 9660 image with label `config-2` and the metadata tree, for guests that ask no network.
use crate::{Error, command::Tool, metadata::tree, qemu::disks};
use assign::GuestData;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("config.iso")
}

/// Builds the drive anew.
pub(crate) async fn build(dir: &Path, guest: &GuestData, owner: Option<u32>) -> Result<(), Error> {
    let (content, part) = (dir.join("config"), dir.join("config.part"));
    clear(&content)?;
    for (path, body) in tree::config_drive(guest) {
        let path = content.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::path("create", parent))?;
        }
        fs::write(&path, body).map_err(Error::path("write", &path))?;
    }
    let made = Tool::new("genisoimage")
        .args(["-quiet", "-publisher", "Drover", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "config-2", "-o"])
        .args([&part, &content])
        .deadline(Duration::from_secs(60))
        .run()
        .await;
    clear(&content)?;
    made?;
    disks::give(&part, owner)?;
    let to = file(dir);
    fs::rename(&part, &to).map_err(Error::path("create", &to))
}

/// It holds the user's secrets, so it does not stay.
fn clear(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::path("remove", dir)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn has_label_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let guest = GuestData { meta_data: serde_json::json!({ "uuid": "canary-uuid" }), ..GuestData::default() };
        build(dir.path(), &guest, None).await.unwrap();
        let iso = fs::read(file(dir.path())).unwrap();
        assert_eq!(&iso[32768 + 40..32768 + 48], b"config-2");
        assert!(iso.windows(11).any(|w| w == b"canary-uuid"));
        assert!(!dir.path().join("config").exists());
    }
}
