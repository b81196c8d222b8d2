//! Decides what to do for one volume, from what is wanted, what is seen and what was given up. Pure.
//!
//! ```text
//!             Make              Serve ─▶ export ─▶ Revoke
//!   nothing ────────▶ data ◀──▶ Replace, Grow, TakeSnapshot, DropSnapshot, Merge
//!      ▲                │
//!      └─── Remove ◀────┘  (only when the assignment says so)
//! ```
//! What ends an access comes first, then what changes data, then what gives access: a volume that is both detached and grown is never
//! reachable in between. A step that was given up for a revision is left out, and the others go on: a volume that cannot grow stays served.
use assign::{BlobInfo, Export, Keep, LiveExport, VolumeAssignment, VolumeState, VolumeUpload};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What there is of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub data: Data,
    pub snapshots: BTreeSet<String>,
    pub engine: Engine,
    pub exports: Vec<Served>,
    /// Images that were made or failed.
    pub uploads: BTreeMap<String, Result<BlobInfo, String>>,
    /// Images that are being made.
    pub uploading: BTreeSet<String>,
    /// Are there layers that only deleted snapshots needed?
    pub mergeable: bool,
}

/// A volume's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    #[default]
    Nothing,
    Present {
        size_gib: u64,
        generation: u64,
    },
    /// It was there, and is not any more, or what is known of it cannot be read.
    Lost(String),
}

/// The process that serves a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    #[default]
    Off,
    On,
    /// It still writes to a layer that is to be frozen.
    Behind,
    /// It does not answer, or serves other data than the volume's.
    Unfit,
}

/// An export that serves, and what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub export: Export,
    pub live: LiveExport,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Make,
    /// The content anew, from the source.
    Replace,
    Grow,
    TakeSnapshot(String),
    DropSnapshot(String),
    /// The engine goes on in the newest layer.
    Follow,
    EndEngine,
    Serve(Export),
    Revoke(Export),
    StartUpload(VolumeUpload),
    ForgetUpload(String),
    Merge,
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make => f.write_str("make data"),
            Self::Replace => f.write_str("replace data"),
            Self::Grow => f.write_str("grow"),
            Self::TakeSnapshot(id) => write!(f, "take snapshot {id}"),
            Self::DropSnapshot(id) => write!(f, "drop snapshot {id}"),
            Self::Follow => f.write_str("go on in the newest layer"),
            Self::EndEngine => f.write_str("end the storage daemon"),
            Self::Serve(e) => write!(f, "serve attachment {}", e.attachment_id),
            Self::Revoke(e) => write!(f, "revoke attachment {}", e.attachment_id),
            Self::StartUpload(u) => write!(f, "make image {}", u.image_id),
            Self::ForgetUpload(id) => write!(f, "forget image {id}"),
            Self::Merge => f.write_str("merge layers"),
            Self::Remove => f.write_str("remove data"),
        }
    }
}

impl Step {
    /// Can the step be given up? Accesses and removals are tried for ever.
    pub fn is_optional(&self) -> bool {
        match self {
            Self::Make | Self::Replace | Self::Grow | Self::TakeSnapshot(_) | Self::Merge => true,
            Self::DropSnapshot(_)
            | Self::Follow
            | Self::EndEngine
            | Self::Serve(_)
            | Self::Revoke(_)
            | Self::StartUpload(_)
            | Self::ForgetUpload(_)
            | Self::Remove => false,
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Steps(Vec<Step>),
    Settled { state: VolumeState, cause: Option<String> },
}

/// Decides; `given_up` are the steps that will not be tried again for this revision, and why.
pub fn plan(a: &VolumeAssignment, seen: &Seen, given_up: &BTreeMap<String, String>) -> Plan {
    let steps = match a.keep {
        Keep::Deleted => removal(seen),
        Keep::Present => presence(a, seen),
    };
    let left: Vec<Step> = steps.into_iter().filter(|s| !given_up.contains_key(&s.to_string())).collect();
    if !left.is_empty() {
        return Plan::Steps(left);
    }
    let settled = |state, cause| Plan::Settled { state, cause };
    let merge = Step::Merge.to_string();
    // Layers that are not merged cost room, nothing else.
    let failed = given_up.iter().find(|(step, _)| **step != merge).map(|(_, cause)| cause);
    match (&seen.data, a.keep, failed) {
        (_, Keep::Deleted, _) => settled(VolumeState::Gone, None),
        (Data::Lost(cause), Keep::Present, _) => settled(VolumeState::Failed, Some(cause.clone())),
        (_, Keep::Present, Some(cause)) => settled(VolumeState::Failed, Some(cause.clone())),
        (_, Keep::Present, None) => settled(VolumeState::Ready, None),
    }
}

fn removal(seen: &Seen) -> Vec<Step> {
    let mut steps: Vec<Step> = seen.exports.iter().map(|s| Step::Revoke(s.export.clone())).collect();
    if seen.engine != Engine::Off {
        steps.push(Step::EndEngine);
    }
    if seen.data != Data::Nothing || !steps.is_empty() {
        steps.push(Step::Remove);
    }
    steps
}

fn presence(a: &VolumeAssignment, seen: &Seen) -> Vec<Step> {
    let revoked = seen.exports.iter().filter(|s| !a.exports.contains(&s.export));
    let mut steps: Vec<Step> = revoked.map(|s| Step::Revoke(s.export.clone())).collect();
    let (size, generation) = match &seen.data {
        Data::Nothing => {
            steps.push(Step::Make);
            return steps;
        }
        Data::Lost(_) => return steps,
        Data::Present { size_gib, generation } => (*size_gib, *generation),
    };
    let is_idle = a.exports.is_empty() && steps.len() == seen.exports.len();
    if seen.engine == Engine::Unfit || (is_idle && seen.engine != Engine::Off) {
        steps.push(Step::EndEngine);
        return steps;
    }
    if generation != a.generation {
        // Nobody may look while the content changes.
        steps.clear();
        steps.extend(seen.exports.iter().map(|s| Step::Revoke(s.export.clone())));
        if seen.engine != Engine::Off {
            steps.push(Step::EndEngine);
        }
        steps.push(Step::Replace);
        return steps;
    }
    if seen.engine == Engine::Behind {
        steps.push(Step::Follow);
    }
    if size < a.size_gib {
        steps.push(Step::Grow);
    }
    let named: BTreeSet<&String> = a.snapshots.iter().collect();
    steps.extend(a.snapshots.iter().filter(|s| !seen.snapshots.contains(*s)).cloned().map(Step::TakeSnapshot));
    steps.extend(seen.snapshots.iter().filter(|s| !named.contains(s)).cloned().map(Step::DropSnapshot));
    let is_served = |e: &Export| seen.exports.iter().any(|s| s.export == *e);
    steps.extend(a.exports.iter().filter(|e| !is_served(e)).cloned().map(Step::Serve));
    let is_new = |u: &VolumeUpload| !seen.uploads.contains_key(&u.image_id) && !seen.uploading.contains(&u.image_id);
    steps.extend(a.uploads.iter().filter(|u| is_new(u)).cloned().map(Step::StartUpload));
    let known = seen.uploads.keys().chain(&seen.uploading);
    steps.extend(known.filter(|i| !a.uploads.iter().any(|u| u.image_id == **i)).cloned().map(Step::ForgetUpload));
    if steps.is_empty() && seen.mergeable && is_idle && seen.uploading.is_empty() {
        steps.push(Step::Merge);
    }
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
