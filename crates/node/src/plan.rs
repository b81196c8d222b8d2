//! Decides what to do for one server, from what is wanted, what is seen and what is remembered. Pure.
//!
//! ```text
//!            Start (held)      Continue
//!   absent ───────────▶ held ───────────▶ running ◀──▶ paused
//!     ▲                   │                  │ guest powers off, dies
//!     │  End              ▼                  ▼
//!     └────────────────  ending ◀───────── halted (stays so for this revision)
//! ```
//! The agent carries out the steps in order, looks again, and plans again until the plan is [`Plan::Settled`].
use crate::remember::{Halted, Remembered};
use assign::{AttachedVolume, GuestState, ImageRef, PortAssignment, Power, RootDisk, ServerAssignment};
use std::{collections::BTreeSet, fmt};

/// What the hypervisor sees of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The process that runs; `None` also when the remembered one has ended.
    pub process: Option<Status>,
    pub root_disk: bool,
    pub config_drive: bool,
    /// Attachments whose device is in the guest.
    pub volumes: BTreeSet<String>,
    /// Of these, those that the guest was asked to let go of just now.
    pub asked: BTreeSet<String>,
    /// Attachments that the guest has not let go of for long.
    pub stuck: BTreeSet<String>,
    /// Attachments that failed just now, while the guest ran: they wait for their next try.
    pub put_off: BTreeSet<String>,
}

/// How a guest's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    /// Started, and not one instruction was run.
    Held,
    /// The guest powered itself off; the process waits to be ended.
    PoweredOff,
    /// Stopped by an error of its disk, such as a full host.
    DiskError,
    /// Paused by the watchdog device.
    Watchdog,
    /// QEMU gave up on the guest.
    Broken,
    /// The process lives but does not answer.
    Silent,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    FetchImage(ImageRef),
    /// Makes the root disk anew from its image; an older one is removed.
    CreateDisk,
    /// Grows the root disk to the assigned size.
    GrowDisk,
    CreateRescueDisk(ImageRef),
    BuildConfigDrive,
    Plug(PortAssignment),
    Unplug(String),
    /// Starts the process; the guest is held.
    Start,
    AttachNic(PortAssignment),
    DetachNic(String),
    /// The server holds the volume: it is plugged at the next start.
    HoldVolume(AttachedVolume),
    AttachVolume(AttachedVolume),
    /// Asks the guest to let go of the volume.
    AskForVolume(String),
    /// Closes a volume that the guest has let go of.
    DetachVolume(String),
    /// The server does not hold the volume any more.
    ForgetVolume(String),
    /// Tells the guest that the volume has grown.
    GrowVolume(AttachedVolume),
    Continue,
    Pause,
    /// Ends the process; a guest may obey the power button first.
    End(Grace),
    /// The process has ended while it was being ended.
    NoteEnd,
    /// The guest ended unasked.
    NoteHalt(Option<String>),
    /// A reboot of a server that is off asks for nothing.
    NoteReboot,
    Destroy,
}

/// How much time a guest gets before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    None,
    Stop,
    SoftReboot,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Steps(Vec<Step>),
    /// Nothing to do; `retry_disk` asks to continue the guest now and then, in case that the disk has room again; `waits` asks to
    /// look again soon.
    Settled {
        state: GuestState,
        cause: Option<String>,
        retry_disk: bool,
        waits: bool,
    },
    /// The assignment is older than what this node has seen: it must not be acted upon.
    Stale,
}

impl fmt::Display for Step {
    /// For `drover why`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FetchImage(i) => write!(f, "fetch image {}", i.image_id),
            Self::CreateDisk => f.write_str("create disk"),
            Self::GrowDisk => f.write_str("grow disk"),
            Self::CreateRescueDisk(_) => f.write_str("create rescue disk"),
            Self::BuildConfigDrive => f.write_str("build config drive"),
            Self::Plug(p) => write!(f, "plug port {}", p.id),
            Self::Unplug(p) => write!(f, "unplug port {p}"),
            Self::Start => f.write_str("start QEMU"),
            Self::AttachNic(p) => write!(f, "attach interface {}", p.id),
            Self::DetachNic(p) => write!(f, "detach interface {p}"),
            Self::HoldVolume(v) | Self::AttachVolume(v) => write!(f, "attach volume {}", v.volume_id),
            Self::AskForVolume(a) | Self::DetachVolume(a) | Self::ForgetVolume(a) => write!(f, "detach attachment {a}"),
            Self::GrowVolume(v) => write!(f, "tell guest of the size of volume {}", v.volume_id),
            Self::Continue => f.write_str("run guest"),
            Self::Pause => f.write_str("pause guest"),
            Self::End(Grace::None) => f.write_str("end guest"),
            Self::End(Grace::Stop | Grace::SoftReboot) => f.write_str("shut guest down"),
            Self::NoteEnd | Self::NoteHalt(_) => f.write_str("note end of guest"),
            Self::NoteReboot => f.write_str("note reboot"),
            Self::Destroy => f.write_str("remove files"),
        }
    }
}

/// Decides; `None` means that the server is not assigned to this node (any more).
pub fn plan(wanted: Option<&ServerAssignment>, seen: &Observed, known: &Remembered) -> Plan {
    match wanted {
        None => removal(known),
        Some(a) if a.epoch < known.epoch || (known.gone && a.epoch <= known.epoch) => Plan::Stale,
        Some(a) => Decision { a, seen, known }.plan(),
    }
}

fn removal(known: &Remembered) -> Plan {
    if known.gone {
        return settled(GuestState::Gone);
    }
    let mut steps = Vec::new();
    if known.process.is_some() {
        steps.push(Step::End(Grace::None));
    }
    steps.extend(known.ports.keys().cloned().map(Step::Unplug));
    steps.push(Step::Destroy);
    Plan::Steps(steps)
}

fn settled(state: GuestState) -> Plan {
    Plan::Settled { state, cause: None, retry_disk: false, waits: false }
}
fn because(state: GuestState, cause: String) -> Plan {
    Plan::Settled { state, cause: Some(cause), retry_disk: false, waits: false }
}

struct Decision<'a> {
    a: &'a ServerAssignment,
    seen: &'a Observed,
    known: &'a Remembered,
}

impl Decision<'_> {
    fn plan(&self) -> Plan {
        match self.seen.process {
            None if self.known.process.as_ref().is_some_and(|p| p.ending) => Plan::Steps(vec![Step::NoteEnd]),
            None if self.known.process.is_some() => Plan::Steps(vec![Step::NoteHalt(Some(format!(
                "Server {} ended unexpectedly on its node; start or reboot it.",
                self.a.id
            )))]),
            None => self.while_off(),
            Some(status) => self.while_on(status),
        }
    }

    fn is_wanted_on(&self) -> bool {
        match self.a.power {
            Power::Running | Power::Paused => true,
            Power::Stopped => false,
        }
    }
    fn is_reboot_due(&self) -> bool {
        self.a.reboot.count > self.known.reboot_done
    }
    fn new_disk(&self) -> Option<&RootDisk> {
        let is_new = |root: &&RootDisk| self.known.disk.as_ref().is_none_or(|d| d.generation != root.generation);
        self.a.root.as_ref().filter(is_new)
    }
    fn is_disk_new(&self) -> bool {
        self.new_disk().is_some()
    }
    fn must_grow(&self) -> bool {
        self.a.root.as_ref().is_some_and(|root| self.known.disk.as_ref().is_some_and(|d| d.size_gib < root.size_gib))
    }
    fn wants(&self, attachment: &str, epoch: u64) -> bool {
        self.a.volumes.iter().any(|v| v.attachment_id == attachment && v.epoch == epoch)
    }

    fn while_off(&self) -> Plan {
        let mut steps = Vec::new();
        if let Some(root) = self.new_disk() {
            steps.extend([Step::FetchImage(root.image.clone()), Step::CreateDisk]);
        } else if self.a.root.is_some() && !self.seen.root_disk {
            return because(GuestState::Failed, crate::Error::DiskMissing(self.a.id.clone()).to_string());
        } else if self.a.root.is_none() && self.is_wanted_on() && !self.a.volumes.iter().any(|v| v.boot) {
            // Its volume is not served yet.
            return Plan::Settled { state: GuestState::Building, cause: None, retry_disk: false, waits: true };
        } else if self.must_grow() {
            steps.push(Step::GrowDisk);
        }
        steps.extend(self.ports_to_unplug().map(Step::Unplug));
        let dropped = self.known.volumes.iter().filter(|(id, epoch)| !self.wants(id, **epoch));
        steps.extend(dropped.map(|(id, _)| Step::ForgetVolume(id.clone())));
        let is_held = |v: &AttachedVolume| self.known.volumes.get(&v.attachment_id) == Some(&v.epoch);
        let to_hold = || self.a.volumes.iter().filter(|v| !is_held(v)).cloned().map(Step::HoldVolume);
        if !self.is_wanted_on() {
            steps.extend(to_hold());
            if self.is_reboot_due() {
                steps.push(Step::NoteReboot);
            }
            return if steps.is_empty() { settled(GuestState::Stopped) } else { Plan::Steps(steps) };
        }
        if let Some(halted) = &self.known.halted
            && halted.revision >= self.a.revision
            && !self.is_reboot_due()
            && !self.is_disk_new()
        {
            steps.extend(to_hold());
            return if steps.is_empty() { self.while_halted(halted) } else { Plan::Steps(steps) };
        }
        if let Some(image) = &self.a.rescue {
            steps.extend([Step::FetchImage(image.clone()), Step::CreateRescueDisk(image.clone())]);
        }
        if self.a.config_drive && (!self.seen.config_drive || self.is_disk_new()) {
            steps.push(Step::BuildConfigDrive);
        }
        steps.extend(self.a.ports.iter().cloned().map(Step::Plug));
        steps.push(Step::Start);
        steps.extend(self.a.ports.iter().cloned().map(Step::AttachNic));
        steps.extend(self.a.volumes.iter().filter(|v| !v.boot).cloned().map(Step::AttachVolume));
        if self.a.power == Power::Running {
            steps.push(Step::Continue);
        }
        Plan::Steps(steps)
    }

    fn while_halted(&self, halted: &Halted) -> Plan {
        match &halted.crash {
            None => settled(GuestState::Stopped),
            Some(cause) => because(GuestState::Crashed, cause.clone()),
        }
    }

    fn ports_to_unplug(&self) -> impl Iterator<Item = String> {
        let wanted: BTreeSet<&str> = self.a.ports.iter().map(|p| p.id.as_str()).collect();
        self.known.ports.keys().filter(move |p| !wanted.contains(p.as_str())).cloned()
    }

    /// Why the process must end, and how kindly.
    fn end(&self, status: Status) -> Option<Grace> {
        let process = self.known.process.as_ref()?;
        let responsive = status == Status::Running;
        let kindly = |grace| if responsive { grace } else { Grace::None };
        if self.is_disk_new() || process.ending || (self.is_reboot_due() && self.a.reboot.hard) {
            return Some(Grace::None);
        }
        let reshaped = process.vcpus != self.a.vcpus || process.memory_mib != self.a.memory_mib;
        let rescue_changed = process.rescue.as_deref() != self.a.rescue.as_ref().map(|i| i.blob.as_str());
        if !self.is_wanted_on() || reshaped || rescue_changed || self.must_grow() {
            return Some(kindly(Grace::Stop));
        }
        self.is_reboot_due().then(|| kindly(Grace::SoftReboot))
    }

    fn while_on(&self, status: Status) -> Plan {
        if let Some(grace) = self.end(status) {
            return Plan::Steps(vec![Step::End(grace)]);
        }
        match status {
            Status::PoweredOff => Plan::Steps(vec![Step::NoteHalt(None), Step::End(Grace::None)]),
            Status::Silent => {
                because(GuestState::Failed, format!("Server {} does not answer its node; reboot it hard.", self.a.id))
            }
            Status::Broken => because(
                GuestState::Crashed,
                format!("Server {} was stopped by an internal error of QEMU; reboot it hard.", self.a.id),
            ),
            Status::Running | Status::Paused | Status::Held | Status::DiskError | Status::Watchdog => self.while_alive(status),
        }
    }

    fn while_alive(&self, status: Status) -> Plan {
        let attached: BTreeSet<&str> = self.known.process.iter().flat_map(|p| p.nics.keys()).map(String::as_str).collect();
        let wanted: BTreeSet<&str> = self.a.ports.iter().map(|p| p.id.as_str()).collect();
        let mut steps = Vec::new();
        for gone in attached.iter().filter(|p| !wanted.contains(*p)) {
            steps.push(Step::DetachNic((*gone).to_owned()));
        }
        steps.extend(self.ports_to_unplug().map(Step::Unplug));
        for port in self.a.ports.iter().filter(|p| !attached.contains(p.id.as_str())) {
            steps.extend([Step::Plug(port.clone()), Step::AttachNic(port.clone())]);
        }
        let waits = self.change_volumes(&mut steps);
        match (self.a.power, status) {
            (Power::Running, Status::Paused | Status::Held) => steps.push(Step::Continue),
            (Power::Paused, Status::Running) => steps.push(Step::Pause),
            _ => {}
        }
        if !steps.is_empty() {
            return Plan::Steps(steps);
        }
        match status {
            Status::Running => Plan::Settled { state: GuestState::Running, cause: self.stuck_volume(), retry_disk: false, waits },
            Status::DiskError => Plan::Settled {
                state: GuestState::Paused,
                cause: Some(format!(
                    "The disk of server {} cannot be written; it goes on by itself when that is over.",
                    self.a.id
                )),
                retry_disk: self.a.power == Power::Running,
                waits,
            },
            Status::Watchdog if self.a.power == Power::Running => {
                because(GuestState::Paused, format!("Server {} was paused by its watchdog; reboot it hard.", self.a.id))
            }
            _ => Plan::Settled { state: GuestState::Paused, cause: None, retry_disk: false, waits },
        }
    }

    /// Volumes come and go in a guest that lives: it must let go of them itself. Is there something to wait for?
    fn change_volumes(&self, steps: &mut Vec<Step>) -> bool {
        let Some(process) = &self.known.process else { return false };
        let mut waits = false;
        for (id, plugged) in &process.volumes {
            // The root disk stays as long as the guest runs.
            if self.wants(id, plugged.epoch) || plugged.slot.is_none() {
                continue;
            }
            match (self.seen.volumes.contains(id), self.seen.asked.contains(id)) {
                (true, true) => waits = true,
                (true, false) => steps.push(Step::AskForVolume(id.clone())),
                (false, _) => steps.push(Step::DetachVolume(id.clone())),
            }
        }
        let held = self.known.volumes.iter().filter(|(id, epoch)| !process.volumes.contains_key(*id) && !self.wants(id, **epoch));
        steps.extend(held.map(|(id, _)| Step::ForgetVolume(id.clone())));
        for volume in &self.a.volumes {
            let step = match process.volumes.get(&volume.attachment_id) {
                None if volume.boot => continue,
                None => Step::AttachVolume(volume.clone()),
                Some(plugged) if plugged.epoch == volume.epoch && plugged.size_gib < volume.size_gib => {
                    Step::GrowVolume(volume.clone())
                }
                Some(_) => continue,
            };
            if self.seen.put_off.contains(&volume.attachment_id) {
                waits = true;
            } else {
                steps.push(step);
            }
        }
        waits
    }

    fn stuck_volume(&self) -> Option<String> {
        let volumes = &self.known.process.as_ref()?.volumes;
        let stuck = volumes.iter().find(|(id, plugged)| self.seen.stuck.contains(*id) && !self.wants(id, plugged.epoch));
        stuck.map(|(_, plugged)| {
            let volume = &plugged.volume_id;
            format!("The guest of server {} does not let go of volume {volume}; unmount it there, or stop the server.", self.a.id)
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
