//! Bytes go out.
use crate::{
    App,
    rest::{look, require},
    sweeper::has_data,
    upload::explain,
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Result};
use std::{ops::Range, sync::Arc};

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let app = app.clone();
    vec![Route::new("GET", "/v2/images/{id}/file", Access::Authenticated, move |call| download(app.clone(), call)).stream()]
}

async fn download(app: Arc<App>, call: Call) -> Result<Reply> {
    let image = look(&call)?;
    require(&call.cx, "download_image", Some(&image.map))?;
    if image.status == "deactivated" && !call.cx.is_admin() {
        return Err(Error::forbidden("The requested image has been deactivated. Image data download is forbidden."));
    }
    if !has_data(&image.map) {
        return Ok(Reply::empty(204));
    }
    let opened = app.stores.open_image(&image.map).await.map_err(explain)?;
    let size = opened.size();
    let range = match call.header("range").or(call.header("content-range")) {
        None => None,
        Some(text) => Some(parse_range(text, size).ok_or_else(|| {
            Error::range_not_satisfiable(format!("The range '{text}' does not lie within the image's {size} bytes."))
        })?),
    };
    let bytes = range.clone().unwrap_or(0..size);
    let length = bytes.end - bytes.start;
    let reply = Reply::stream(if range.is_some() { 206 } else { 200 }, "application/octet-stream", opened.stream(bytes))
        .header("accept-ranges", "bytes")
        .header("content-length", length.to_string());
    Ok(match (range, &image.checksum) {
        (Some(r), _) => reply.header("content-range", format!("bytes {}-{}/{size}", r.start, r.end.saturating_sub(1))),
        (None, Some(md5)) => reply.header("content-md5", md5.clone()),
        (None, None) => reply,
    })
}

/// `bytes=0-99`, `bytes=100-`, `bytes=-50`, or Glance's old `bytes 0-99/200`. One range; none if it holds no byte.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let spec = text.trim().strip_prefix("bytes")?.trim_start_matches(['=', ' ']);
    let spec = spec.split('/').next()?;
    let (first, last) = spec.split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-9", 100), Some(0..10));
        assert_eq!(parse_range("bytes=90-", 100), Some(90..100));
        assert_eq!(parse_range("bytes=-10", 100), Some(90..100));
        assert_eq!(parse_range("bytes=90-200", 100), Some(90..100));
        assert_eq!(parse_range("bytes 0-9/100", 100), Some(0..10));
        for none in ["bytes=100-", "bytes=9-3", "bytes=-0", "lines=1-2", "bytes=a-b", "bytes=0-1,3-4"] {
            assert_eq!(parse_range(none, 100), None, "{none}");
        }
    }
}
