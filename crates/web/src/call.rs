//! Short questions to a server that the operator named, and short answers: under the rules of [`fetch`](crate::fetch).
use crate::{
    Error,
    fetch::{Rules, place},
    http::Body,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;

/// A question.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub method: &'static str,
    pub url: &'a str,
    /// Without an `accept` among them, JSON is asked for.
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// What was answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Asks, and reads an answer of at most `most` bytes. The caller sets the deadline.
pub async fn ask(question: Question<'_>, rules: &Rules, most: usize) -> Result<Answer, Error> {
    let (server, uri, addresses) = place(question.url, rules).await?;
    let target = uri.path_and_query().map_or("/", |p| p.as_str());
    let length = question.body.len() as u64;
    let body: Body = Full::new(Bytes::from(question.body)).map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::builder()
        .method(question.method)
        .uri(target)
        .header("host", server.name())
        .header("accept-encoding", "identity")
        .header("user-agent", concat!("drover/", env!("CARGO_PKG_VERSION")));
    if !question.headers.iter().any(|(name, _)| *name == "accept") {
        request = request.header("accept", "application/json");
    }
    for (name, value) in question.headers {
        request = request.header(name, value);
    }
    let request = request.body(body).map_err(|_| Error::BadUrl { url: uri.to_string(), why: "it is malformed" })?;
    let mut answer = server.send(&addresses, request, length).await?;
    if answer.status().is_redirection() {
        return Err(Error::Redirected { server: server.name() });
    }
    let body = server.bytes(answer.body_mut(), most + 1).await?;
    if body.len() > most {
        let what = format!("it is longer than {most} bytes");
        return Err(Error::Malformed { server: server.name(), asked: question.method, what });
    }
    Ok(Answer { status: answer.status().as_u16(), body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    async fn answer(text: &'static str) -> (String, Rules) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // The question to its end: what is left unread would reset the connection.
                while stream.read_u8().await.is_ok_and(|byte| byte != b'?') {}
                stream.write_all(text.as_bytes()).await.ok();
            }
        });
        let rules = Rules { ports: vec![port], allow: vec!["127.0.0.0/8".parse().unwrap()], ..Rules::default() };
        (format!("http://127.0.0.1:{port}/x"), rules)
    }

    fn question(url: &str) -> Question<'_> {
        Question { method: "POST", url, headers: vec![("content-type", "text/plain".into())], body: "?".into() }
    }

    #[tokio::test]
    async fn answers_are_short_and_from_where_they_were_asked() {
        let (url, rules) = answer("HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nnope").await;
        assert_eq!(ask(question(&url), &rules, 10).await.unwrap(), Answer { status: 400, body: b"nope".to_vec() });
        assert!(matches!(ask(question(&url), &rules, 3).await, Err(Error::Malformed { .. })));
        assert!(matches!(ask(question(&url), &Rules { allow: Vec::new(), ..rules }, 10).await, Err(Error::Forbidden { .. })));
        let (url, rules) =
            answer("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(ask(question(&url), &rules, 10).await, Err(Error::Redirected { .. })));
    }
}
