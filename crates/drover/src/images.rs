//! The stores of images, as the operator configures them.
use crate::config::{Config, State};
use image::{Definition, Options, ProtectionFormat, Protections, Stores, blob::LocalStore};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a store's definition may say.
const KEYS: [&str; 11] =
    ["id", "type", "description", "weight", "path", "endpoint", "bucket", "region", "prefix", "credentials", "ca"];

/// `id=rgw,type=s3,endpoint=https://…,bucket=images,credentials=/etc/drover/rgw`
pub(crate) fn definition(text: &str) -> Result<Definition, String> {
    let mut map = Map::new();
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not KEY=VALUE"))?;
        if !KEYS.contains(&key) {
            return Err(format!("a store has no `{key}`; it has {}", KEYS.join(", ")));
        }
        let value = match key {
            // The process that uses it runs elsewhere.
            "path" | "credentials" | "ca" => {
                let path = std::path::absolute(value).map_err(|e| format!("`{value}` is no path: {e}"))?;
                Value::from(path.to_string_lossy().into_owned())
            }
            "weight" => Value::from(value.parse::<i64>().map_err(|_| format!("the weight `{value}` is not a number"))?),
            _ => Value::from(value),
        };
        map.insert(key.to_owned(), value);
    }
    serde_json::from_value(map.into()).map_err(|e| e.to_string())
}

/// The stores that are enabled, with `local` in the state directory.
pub(crate) fn open(state: &State, config: &Config) -> Result<Arc<Stores>, String> {
    let local = Arc::new(LocalStore::open(state.images()).map_err(|e| base::chain(&e))?);
    Stores::open(local, &config.image_stores, &config.default_image_store).map_err(|e| base::chain(&e))
}

/// What the operator chose of the image service.
pub(crate) fn options(config: &Config) -> Options {
    let rules = web::fetch::Rules {
        allow: config.web_download_allow.clone(),
        ports: config.web_download_ports.clone(),
        ..web::fetch::Rules::default()
    };
    Options {
        require_format: config.require_image_format_match,
        web: config.web_download.then_some(rules),
        locations: config.image_locations,
        cache: config.image_cache_gib << 30,
        ..Options::default()
    }
}

/// Which properties the operator protects.
pub(crate) fn protections(config: &Config) -> Result<Option<Protections>, String> {
    let Some(path) = &config.image_property_protections else { return Ok(None) };
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("The property protections {} cannot be read: {e}.", path.display()))?;
    let format = if config.image_property_policies { ProtectionFormat::Policies } else { ProtectionFormat::Roles };
    Protections::parse(&text, format).map(Some).map_err(|e| format!("{}: {e}.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Backend;

    #[test]
    fn definitions_are_read_and_kept() {
        let text = "id=rgw,type=s3,endpoint=https://rgw.example.org,bucket=images,credentials=/etc/drover/rgw,weight=10";
        let read = definition(text).unwrap();
        assert_eq!((read.id.as_str(), read.weight), ("rgw", 10));
        assert!(matches!(&read.backend, Backend::S3 { region, .. } if region == "us-east-1"));
        let kept = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&kept).unwrap(), read);
        assert!(matches!(definition("id=fast,type=local,path=/mnt").unwrap().backend, Backend::Local { .. }));
        for bad in [
            "",
            "rgw",
            "id=x",
            "id=x,type=tape",
            "id=x,type=local",
            "id=x,type=local,path=/a,secret=b",
            "id=x,type=local,path=/a,weight=b",
        ] {
            assert!(definition(bad).is_err(), "{bad}");
        }
    }
}
