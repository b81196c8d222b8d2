//! Commands to a running daemon of Open vSwitch or OVN, over its control socket (JSON-RPC 1.0, as `ovs-appctl` speaks it).
use crate::{Error, frame::Framer};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

const WITHIN: Duration = Duration::from_secs(5);

/// Carries out `command` in the daemon that has this control socket; gives what it prints.
pub async fn unixctl(socket: &Path, command: &'static str, arguments: &[&str]) -> Result<String, Error> {
    let name = || format!("unix:{}", socket.display());
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await.map_err(|e| e.to_string())?;
        let question = json!({ "method": command, "params": arguments, "id": 0 }).to_string();
        stream.write_all(question.as_bytes()).await.map_err(|e| e.to_string())?;
        let (mut framer, mut buffer) = (Framer::default(), vec![0; 16 << 10]);
        loop {
            if let Some(answer) = framer.next()? {
                return Ok(answer);
            }
            match stream.read(&mut buffer).await.map_err(|e| e.to_string())? {
                0 => return Err("closed by the daemon".to_owned()),
                n => framer.push(&buffer[..n])?,
            }
        }
    };
    let late = |_| Error::Deadline { what: command, endpoints: name(), within: WITHIN };
    let refused = |text: String| Error::Refused { what: command, text };
    let answer: Value = tokio::time::timeout(WITHIN, exchange).await.map_err(late)?.map_err(refused)?;
    match (answer.get("error"), answer.get("result")) {
        (None | Some(Value::Null), Some(Value::String(text))) => Ok(text.clone()),
        (None | Some(Value::Null), _) => Err(Error::Protocol(format!("the answer to {command} is no text"))),
        (Some(error), _) => Err(refused(error.as_str().map_or_else(|| error.to_string(), str::to_owned))),
    }
}
