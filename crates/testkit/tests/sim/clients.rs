//! Users: each works on things of its own, through any controller, and writes down what it was told. In the end all of that must be so.
use crate::{
    chance::Dice,
    controller::Answer,
    door::{Asked, Door},
    oracle::Rows,
    trace::Trace,
};
use base::Clock as _;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

const COMPUTE: &str = "/compute/v2.1/servers";
const NETWORK: &str = "/network/v2.0";

/// What all of them need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    pub(crate) image: String,
    pub(crate) network: String,
    pub(crate) public: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Server,
    Port,
    Network,
    FloatingIp,
    Volume,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Port => "port",
            Self::Network => "network",
            Self::FloatingIp => "floatingip",
            Self::Volume => "volume",
        }
    }
    fn path(self) -> String {
        match self {
            Self::Server => COMPUTE.to_owned(),
            Self::Volume => "/volume/v3/volumes".to_owned(),
            Self::Port | Self::Network | Self::FloatingIp => format!("{NETWORK}/{}s", self.name()),
        }
    }
    fn table(self) -> &'static str {
        match self {
            Self::Server => "compute/servers/",
            Self::Port => "network/ports/",
            Self::Network => "network/networks/",
            Self::FloatingIp => "network/floatingips/",
            Self::Volume => "volume/volumes/",
        }
    }
    /// What users name it by.
    fn label(self) -> &'static str {
        match self {
            Self::Server | Self::Port | Self::Network | Self::Volume => "name",
            Self::FloatingIp => "description",
        }
    }
}

/// What a user knows of a thing that it made.
#[derive(Clone, Debug)]
struct Thing {
    kind: Kind,
    /// Names that it may have by now: the last one that was acknowledged, and those after it that were not answered.
    names: BTreeSet<String>,
    /// Asked to be deleted, and not answered.
    maybe_gone: bool,
}

pub(crate) struct User {
    door: Door,
    dice: Dice,
    name: String,
    common: Common,
    things: BTreeMap<String, Thing>,
    /// Of things that were acknowledged to be gone.
    gone: BTreeMap<String, Kind>,
    /// Names of things that were asked for; of each there may be one.
    asked: Vec<(Kind, String)>,
    /// Of these none: they were refused.
    refused: Vec<(Kind, String)>,
    count: usize,
}

impl User {
    pub(crate) fn new(name: &str, door: Door, dice: Dice, common: Common) -> Self {
        let (things, gone, asked, refused) = Default::default();
        Self { door, dice, name: name.to_owned(), common, things, gone, asked, refused, count: 0 }
    }

    /// Works until it is to be quiet, and ends what it is at.
    pub(crate) async fn run(mut self, quiet: watch::Receiver<bool>) -> Self {
        let pace = self.dice.seconds(0.1..1.2).as_secs_f64();
        while !*quiet.borrow() {
            sleep(self.dice.seconds(0.0..2.0 * pace)).await;
            if self.dice.chance(0.5) {
                // Together with others, and some of these at the same address.
                let now = base::SystemClock.now().0;
                sleep(Duration::from_micros(u64::try_from(1_000_000 - now.rem_euclid(1_000_000)).unwrap())).await;
                if self.dice.chance(0.25) {
                    let address = 50 + (now / 1_000_000).rem_euclid(6);
                    self.create(Kind::Port, Some(format!("10.1.0.{address}"))).await;
                    continue;
                }
            }
            match self.dice.below(24) {
                0..=4 => self.create(Kind::Server, None).await,
                5..=6 => self.create(Kind::Port, None).await,
                7 => self.create(Kind::Network, None).await,
                8 => self.create(Kind::FloatingIp, None).await,
                9..=11 => self.act().await,
                12 => self.create(Kind::Volume, None).await,
                13..=14 => self.plug().await,
                15 => self.rename().await,
                16 => self.associate().await,
                17 => self.look().await,
                _ => self.delete().await,
            }
        }
        self
    }

    fn next_name(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    fn some(&self, kind: Kind) -> Option<String> {
        let ids: Vec<&String> = self.things.iter().filter(|(_, t)| t.kind == kind && !t.maybe_gone).map(|(id, _)| id).collect();
        self.dice.pick(&ids).map(|id| (*id).clone())
    }

    async fn create(&mut self, kind: Kind, address: Option<String>) {
        let name = self.next_name();
        let body = match kind {
            Kind::Server => {
                let port = self.some(Kind::Port).filter(|_| self.dice.chance(0.3));
                let network = port.map_or_else(|| json!({"uuid": self.common.network}), |p| json!({ "port": p }));
                json!({"name": name, "imageRef": self.common.image, "flavorRef": "tiny", "networks": [network]})
            }
            Kind::Port => {
                let mut port = json!({"name": name, "network_id": self.common.network});
                if let Some(address) = address {
                    port["fixed_ips"] = json!([{ "ip_address": address }]);
                }
                port
            }
            Kind::Network => json!({ "name": name }),
            Kind::Volume => json!({"name": name, "size": 1}),
            Kind::FloatingIp => json!({"description": name, "floating_network_id": self.common.public}),
        };
        let (path, key) = (kind.path(), base::id::uuid());
        let asked = Asked::new("POST", &path, json!({ kind.name(): body }));
        self.asked.push((kind, name.clone()));
        let answer = match self.dice.below(10) {
            0..=4 => self.door.insist(&asked.keyed(&key)).await,
            // Nobody waits: the same request at once through two doors.
            5..=7 => {
                let asked = asked.keyed(&key);
                let (one, other) = tokio::join!(self.door.insist(&asked), self.door.insist(&asked));
                self.same(&one, &other, kind);
                one.filter(|a| a.status < 300).or(other)
            }
            _ => self.door.send(&asked).await,
        };
        let Some(answer) = answer else { return };
        if answer.status >= 300 {
            self.refused.push((kind, name));
            return;
        }
        let id = answer.body[kind.name()]["id"].as_str().unwrap_or_default().to_owned();
        self.things.insert(id.clone(), Thing { kind, names: BTreeSet::from([name]), maybe_gone: false });
        if self.dice.chance(0.3) {
            self.is_there(kind, &id).await;
        }
    }

    /// Two answers to one request name one thing.
    fn same(&self, one: &Option<Answer>, other: &Option<Answer>, kind: Kind) {
        let id = |a: &Option<Answer>| {
            a.as_ref().filter(|a| a.status < 300).map(|a| a.body[kind.name()]["id"].as_str().unwrap_or_default().to_owned())
        };
        if let (Some(one), Some(other)) = (id(one), id(other))
            && one != other
        {
            self.door.trace.violation(&format!("one request made {one} and {other}"));
        }
    }

    /// What was acknowledged is seen by every controller that answers.
    async fn is_there(&self, kind: Kind, id: &str) {
        let path = format!("{}/{id}", kind.path());
        if let Some(answer) = self.door.send(&Asked::new("GET", &path, Value::Null)).await
            && answer.status == 404
        {
            self.door.trace.violation(&format!("{} {id} was made, and is not found", kind.name()));
        }
    }

    async fn look(&self) {
        let ids: Vec<(&String, &Thing)> = self.things.iter().filter(|(_, t)| !t.maybe_gone).collect();
        if let Some((id, thing)) = self.dice.pick(&ids) {
            self.is_there(thing.kind, id).await;
        }
    }

    async fn delete(&mut self) {
        let ids: Vec<(String, Kind)> = self.things.iter().map(|(id, t)| (id.clone(), t.kind)).collect();
        let Some((id, kind)) = self.dice.pick(&ids).cloned() else { return };
        let path = format!("{}/{id}", kind.path());
        if let Some(thing) = self.things.get_mut(&id) {
            thing.maybe_gone = true;
        }
        let Some(answer) = self.door.insist(&Asked::new("DELETE", &path, Value::Null)).await else { return };
        match answer.status {
            202 | 204 | 404 => {
                self.things.remove(&id);
                self.gone.insert(id, kind);
            }
            // In use: it stays. An earlier try may have been carried out, but then this one would not find it in use.
            400 | 409 => {
                if let Some(thing) = self.things.get_mut(&id) {
                    thing.maybe_gone = false;
                }
            }
            _ => {}
        }
    }

    async fn act(&mut self) {
        let Some(id) = self.some(Kind::Server) else { return };
        let path = format!("{COMPUTE}/{id}/action");
        let body = match self.dice.below(14) {
            0 | 1 => json!({"os-stop": null}),
            2 | 3 => json!({"os-start": null}),
            4 => json!({"reboot": {"type": "HARD"}}),
            5 => json!({"reboot": {"type": "SOFT"}}),
            6 => json!({"rebuild": {"imageRef": self.common.image}}),
            7 => json!({"pause": null}),
            8 => json!({"unpause": null}),
            9 => json!({"resize": {"flavorRef": if self.dice.chance(0.5) { "small" } else { "tiny" }}}),
            10 => json!({"confirmResize": null}),
            11 => json!({"revertResize": null}),
            12 => json!({"shelve": null}),
            _ => json!({"unshelve": null}),
        };
        self.door.trace.note(&format!("{} asks {id} to {body}", self.name));
        self.door.send(&Asked::new("POST", &path, body)).await;
    }

    async fn rename(&mut self) {
        let ids: Vec<(String, Kind)> =
            self.things.iter().filter(|(_, t)| !t.maybe_gone).map(|(id, t)| (id.clone(), t.kind)).collect();
        let Some((id, kind)) = self.dice.pick(&ids).cloned() else { return };
        let name = self.next_name();
        let path = format!("{}/{id}", kind.path());
        let answer = self.door.send(&Asked::new("PUT", &path, json!({ kind.name(): { kind.label(): name } }))).await;
        let Some(thing) = self.things.get_mut(&id) else { return };
        match answer {
            None => drop(thing.names.insert(name)),
            Some(a) if a.status == 200 => thing.names = BTreeSet::from([name]),
            Some(_) => {}
        }
    }

    /// Attaches a volume to a server, or detaches it.
    async fn plug(&mut self) {
        let (Some(server), Some(volume)) = (self.some(Kind::Server), self.some(Kind::Volume)) else { return };
        let path = format!("{COMPUTE}/{server}/os-volume_attachments");
        if self.dice.chance(0.6) {
            self.door.send(&Asked::new("POST", &path, json!({"volumeAttachment": {"volumeId": volume}}))).await;
        } else {
            self.door.send(&Asked::new("DELETE", &format!("{path}/{volume}"), Value::Null)).await;
        }
    }

    async fn associate(&mut self) {
        let (Some(floating), Some(port)) = (self.some(Kind::FloatingIp), self.some(Kind::Port)) else { return };
        let port = if self.dice.chance(0.7) { json!(port) } else { Value::Null };
        let path = format!("{NETWORK}/floatingips/{floating}");
        self.door.send(&Asked::new("PUT", &path, json!({"floatingip": {"port_id": port}}))).await;
    }

    /// Is everything that it was told so?
    pub(crate) fn check(&self, rows: &Rows, trace: &Trace) {
        for (id, thing) in &self.things {
            let kind = thing.kind;
            match rows.get(kind.table(), id) {
                None if thing.maybe_gone => {}
                None => trace.violation(&format!("{} {id} was acknowledged, and is lost", kind.name())),
                Some(row) => {
                    let name = row[kind.label()].as_str().unwrap_or_default();
                    if !thing.names.contains(name) {
                        let known = &thing.names;
                        trace.violation(&format!("{} {id} is called {name}, and should be {known:?}", kind.name()));
                    }
                }
            }
        }
        for (id, kind) in &self.gone {
            if rows.get(kind.table(), id).is_some() {
                trace.violation(&format!("{} {id} was acknowledged to be gone, and is there", kind.name()));
            }
        }
        for (kind, name) in &self.asked {
            let there = rows.below(kind.table()).filter(|(_, row)| row[kind.label()] == name.as_str()).count();
            if there > 1 {
                trace.violation(&format!("there are {there} of {} {name}, which was asked for once", kind.name()));
            }
        }
        for (kind, name) in &self.refused {
            if rows.below(kind.table()).any(|(_, row)| row[kind.label()] == name.as_str()) {
                trace.violation(&format!("{} {name} was refused, and is there", kind.name()));
            }
        }
    }
}

/// For the door of a user.
pub(crate) fn dice(seed: u64, user: usize) -> (Arc<Dice>, Dice) {
    (Arc::new(Dice::new(seed, 300 + user as u64)), Dice::new(seed, 400 + user as u64))
}
