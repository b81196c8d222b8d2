use super::*;
use crate::{Controller, Voice};
use base::SteadyClock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::{sync::watch, task::JoinHandle};

fn controller(n: u8) -> Controller {
    Controller { name: format!("c{n}"), api: ([127, 0, 0, n], 8776).into() }
}

struct Here {
    pulse: JoinHandle<()>,
    voice: JoinHandle<()>,
    says: watch::Sender<Option<Readiness>>,
    agent: SocketAddr,
    dir: tempfile::TempDir,
    clock: Arc<SteadyClock>,
    /// For how many milliseconds the store has been silent.
    store: Arc<AtomicU64>,
}

/// A controller on an address of loopback.
async fn start(n: u8, key: u8) -> Here {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SteadyClock::default());
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = agent.local_addr().unwrap();
    let pulse = UdpSocket::bind((controller(n).api.ip(), PULSE_PORT)).await.unwrap();
    let sockets = Sockets::new(pulse, agent, dir.path()).unwrap();
    let running = Pulse::new(&format!("c{n}"), [key; 32], dir.path());
    let pulse = tokio::spawn(async move {
        let Err(e) = running.run(sockets).await;
        panic!("{e}");
    });
    let store = Arc::new(AtomicU64::new(u64::MAX));
    let silent = store.clone();
    let of_api = Voice::new(dir.path(), clock.clone(), move || Duration::from_millis(silent.load(Ordering::SeqCst)));
    let ten = n / 10 * 10;
    of_api.know(&[controller(ten + 1), controller(ten + 2), controller(ten + 3)]);
    let speaking = of_api.clone();
    let voice = tokio::spawn(async move {
        speaking.run().await;
    });
    let (says, said) = watch::channel(None);
    tokio::spawn(async move {
        while said.has_changed().is_ok() {
            if let Some(readiness) = *said.borrow() {
                of_api.say(readiness);
            }
            tokio::time::sleep(BEAT).await;
        }
    });
    Here { pulse, voice, says, agent: at, dir, clock, store }
}

impl Here {
    fn keeps_saying(&self, readiness: impl Into<Option<Readiness>>) {
        self.says.send_replace(readiness.into());
    }
    async fn word(&self, name: &str) -> String {
        let mut stream = TcpStream::connect(self.agent).await.unwrap();
        stream.write_all(format!("{name}\n").as_bytes()).await.unwrap();
        let mut word = String::new();
        stream.read_to_string(&mut word).await.unwrap();
        word.trim().to_owned()
    }
    async fn says(&self, name: &str, word: &str) {
        let mut said = String::new();
        for _ in 0..1000 {
            said = self.word(name).await;
            if said == word {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("of {name} it says {said}, not {word}");
    }
    async fn is_alone(&self, alone: bool) {
        let path = alone_file(self.dir.path());
        let right = || std::fs::read_to_string(&path).is_ok_and(|t| t == if alone { "1\n" } else { "0\n" });
        for _ in 0..1000 {
            if right() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("alone is not {alone}");
    }
}

#[tokio::test]
async fn the_time_of_most_controllers_is_everyones() {
    // Nobody is at the third address.
    let (one, two) = (start(21, 7).await, start(22, 7).await);
    let away = |clock: &SteadyClock| clock.now().since(SystemClock.now()) > Duration::from_secs(200);
    for clock in [&one.clock, &two.clock] {
        clock.set(SystemClock.now().plus(Duration::from_secs(300)));
    }
    for _ in 0..1000 {
        if !away(&one.clock) && !away(&two.clock) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!away(&one.clock) && !away(&two.clock), "two of three have the same time");
    two.pulse.abort();
    assert!(two.pulse.await.is_err());
    // What the second has said of its time is forgotten after a while; then one of three cannot know.
    let mut alone = false;
    for _ in 0..100 {
        one.clock.set(SystemClock.now().plus(Duration::from_secs(300)));
        tokio::time::sleep(3 * BEAT).await;
        alone = away(&one.clock);
        if alone {
            break;
        }
    }
    assert!(alone);
    one.pulse.abort();
}

#[tokio::test]
async fn who_reaches_the_store_is_not_alone() {
    // Nobody is at the other addresses.
    let one = start(31, 7).await;
    one.is_alone(true).await;
    one.store.store(0, Ordering::SeqCst);
    one.is_alone(false).await;
    one.store.store(1000, Ordering::SeqCst);
    one.is_alone(true).await;
    one.pulse.abort();
}

#[tokio::test]
async fn a_door_learns_who_can_serve_from_those_who_may_say_so() {
    let (one, two, forger) = (start(11, 7).await, start(12, 7).await, start(13, 8).await);
    one.keeps_saying(Readiness::Ready);
    forger.keeps_saying(Readiness::Ready);
    one.says("c13", "down").await;
    one.says("c12", "down").await;
    two.keeps_saying(Readiness::Ready);
    one.says("c12", "up ready").await;
    two.keeps_saying(Readiness::Draining);
    one.says("c12", "up drain").await;
    two.keeps_saying(Readiness::Ready);
    two.says("c11", "up ready").await;
    // It has hung.
    one.keeps_saying(None);
    one.says("c11", "down").await;
    two.says("c11", "down").await;
    one.keeps_saying(Readiness::Ready);
    two.says("c11", "up ready").await;
    // Its whole process stands still, and the pulse does not.
    one.voice.abort();
    two.says("c11", "down").await;
    one.says("c11", "down").await;
    assert_eq!(one.word("c14").await, "", "nobody knows it");
    assert_eq!(one.word("c13").await, "down", "what is said with another key is not believed");
    one.is_alone(false).await;
    forger.is_alone(true).await;
    two.pulse.abort();
    one.is_alone(true).await;
    // Nobody can serve: nobody is taken out.
    one.says("c12", "up ready").await;
    for here in [one, forger] {
        here.pulse.abort();
    }
}
