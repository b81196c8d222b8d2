//! The QEMU Machine Protocol: JSON lines over a Unix socket. One client at a time: a second one gets no greeting.
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::{broadcast, oneshot},
    task::AbortHandle,
};

/// A guest that took over its QEMU must not fill the agent's memory.
const LONGEST_LINE: u64 = 4 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the connection to QEMU is closed")]
    Closed,
    #[error("QEMU did not answer {0} in time")]
    Timeout(String),
    #[error("QEMU refused {command}: {text}")]
    Refused { command: String, text: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<QmpError> for crate::Error {
    fn from(e: QmpError) -> Self {
        match e {
            QmpError::Refused { command, text } => Self::Refused { command, cause: text },
            QmpError::Timeout(command) => Self::Silent(command),
            QmpError::Closed => Self::Silent("because it has ended".into()),
            QmpError::Io(source) => Self::Io { what: "talking to QEMU".into(), source },
        }
    }
}

/// An event, its name and data.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>>;

/// A connection on which `qmp_capabilities` was answered.
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    events: broadcast::Sender<Event>,
    reader: AbortHandle,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects and negotiates; `on_event` is called for each event, and once with `None` when QEMU is gone.
    pub(crate) async fn connect(
        socket: &Path,
        deadline: Duration,
        on_event: impl Fn(Option<&Event>) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let open = async {
            let (read, write) = UnixStream::connect(socket).await?.into_split();
            let mut read = BufReader::new(read);
            let mut greeting = String::new();
            (&mut read).take(LONGEST_LINE).read_line(&mut greeting).await?;
            if greeting.is_empty() { Err(QmpError::Closed) } else { Ok((read, write)) }
        };
        let (read, write) =
            tokio::time::timeout(deadline, open).await.map_err(|_| QmpError::Timeout("its greeting".into()))??;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let events = broadcast::channel(64).0;
        let reader = tokio::spawn(listen(read, waiting.clone(), events.clone(), on_event)).abort_handle();
        let qmp = Self { writer: tokio::sync::Mutex::new(write), waiting, next: AtomicU64::new(1), events, reader };
        qmp.run("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Runs a command and returns its result.
    pub(crate) async fn run(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.send(command, arguments, None).await
    }

    /// Hands a file descriptor to QEMU under a name.
    pub(crate) async fn pass(&self, name: &str, fd: &OwnedFd) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), Some(fd)).await.map(drop)
    }

    async fn send(&self, command: &str, arguments: Value, fd: Option<&OwnedFd>) -> Result<Value, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => drop(waiting.insert(id, answer)),
            None => return Err(QmpError::Closed),
        }
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let exchange = async {
            {
                let mut writer = self.writer.lock().await;
                match fd {
                    None => writer.write_all(line.as_bytes()).await?,
                    Some(fd) => write_with_fd(writer.as_ref(), line.as_bytes(), fd).await?,
                }
            }
            answered.await.map_err(|_| QmpError::Closed)
        };
        let result = tokio::time::timeout(DEADLINE, exchange).await;
        if let Some(waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            waiting.remove(&id);
        }
        match result {
            Err(_) => Err(QmpError::Timeout(command.to_owned())),
            Ok(Err(e)) => Err(e),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(text))) => Err(QmpError::Refused { command: command.to_owned(), text }),
        }
    }
}

async fn write_with_fd(stream: &UnixStream, line: &[u8], fd: &OwnedFd) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds = [fd.as_raw_fd()];
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let parts = [io::IoSlice::new(line)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&fds)], flags, None)?)
        })
        .await?;
    if sent == line.len() { Ok(()) } else { Err(io::Error::other("a command was cut short")) }
}

async fn listen(
    mut read: BufReader<OwnedReadHalf>,
    waiting: Waiting,
    events: broadcast::Sender<Event>,
    on_event: impl Fn(Option<&Event>),
) {
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut read).take(LONGEST_LINE).read_line(&mut line).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { break };
        if let Some(name) = message["event"].as_str() {
            let event = Event { name: name.to_owned(), data: message["data"].clone() };
            on_event(Some(&event));
            // Nobody has to listen.
            let _ = events.send(event);
            continue;
        }
        let Some(id) = message["id"].as_u64() else { continue };
        let answer = match message.get("error") {
            Some(e) => Err(e["desc"].as_str().unwrap_or("no reason given").to_owned()),
            None => Ok(message["return"].take()),
        };
        let waiter = waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|w| w.remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
    }
    // Dropping the waiters tells each of them that QEMU is gone.
    drop(waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
    on_event(None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A QEMU of two answers: refuses `bad`, takes anything else, sends an event first, and leaves at `quit`.
    async fn fake(listener: UnixListener) {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let m: Value = serde_json::from_str(&line).unwrap();
            let id = &m["id"];
            let answer = match m["execute"].as_str().unwrap() {
                "quit" => return,
                "bad" => json!({ "id": id, "error": { "class": "GenericError", "desc": "no" } }),
                _ => json!({ "id": id, "return": { "n": id } }),
            };
            write.write_all(format!("{}\n{answer}\n", json!({ "event": "RESET", "data": {} })).as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_events_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("q");
        tokio::spawn(fake(UnixListener::bind(&socket).unwrap()));
        let (gone, went) = oneshot::channel();
        let gone = Mutex::new(Some(gone));
        let q = Qmp::connect(&socket, Duration::from_secs(5), move |e| {
            if e.is_none() {
                gone.lock().unwrap().take().unwrap().send(()).unwrap();
            }
        })
        .await
        .unwrap();
        let mut events = q.events();
        assert!(q.run("query-status", json!({})).await.unwrap()["n"].is_u64());
        assert_eq!(events.recv().await.unwrap().name, "RESET");
        assert!(matches!(q.run("bad", json!({})).await, Err(QmpError::Refused { .. })));
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        q.pass("f", &null).await.unwrap();
        assert!(matches!(q.run("quit", json!({})).await, Err(QmpError::Closed)));
        tokio::time::timeout(Duration::from_secs(5), went).await.unwrap().unwrap();
        assert!(!q.is_open());
        assert!(matches!(q.run("query-status", json!({})).await, Err(QmpError::Closed)));
    }
}
