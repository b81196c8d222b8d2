//! The states of a server, in Nova's words, and what may be done in which.
//!
//! ```text
//!              ┌─────────▶ error ◀── any task that fails or passes its deadline
//!  building ───┴▶ active ⇄ stopped          active ⇄ paused | suspended | rescued
//!                 active, stopped ─resize─▶ resized ─confirm, revert─▶ active, stopped
//!                 active, stopped, paused, suspended ─shelve─▶ shelved ─▶ shelved_offloaded ─unshelve─▶ active
//!  any ─delete─▶ (row marked, task `deleting`) ─node says gone─▶ no row
//! ```
use crate::resources::Server;
use api::{Error, Result};
use resource::Object;

/// `OS-EXT-STS:vm_state`.
pub(crate) mod vm {
    pub(crate) const BUILDING: &str = "building";
    pub(crate) const ACTIVE: &str = "active";
    pub(crate) const STOPPED: &str = "stopped";
    pub(crate) const PAUSED: &str = "paused";
    pub(crate) const SUSPENDED: &str = "suspended";
    pub(crate) const RESCUED: &str = "rescued";
    pub(crate) const RESIZED: &str = "resized";
    pub(crate) const SHELVED: &str = "shelved";
    pub(crate) const OFFLOADED: &str = "shelved_offloaded";
    pub(crate) const SOFT_DELETED: &str = "soft-delete";
    pub(crate) const DELETED: &str = "deleted";
    pub(crate) const ERROR: &str = "error";
}

/// `OS-EXT-STS:task_state`.
pub(crate) mod task {
    pub(crate) const SCHEDULING: &str = "scheduling";
    pub(crate) const SPAWNING: &str = "spawning";
    pub(crate) const REBOOTING: &str = "rebooting";
    pub(crate) const REBOOTING_HARD: &str = "rebooting_hard";
    pub(crate) const POWERING_OFF: &str = "powering-off";
    pub(crate) const POWERING_ON: &str = "powering-on";
    pub(crate) const PAUSING: &str = "pausing";
    pub(crate) const UNPAUSING: &str = "unpausing";
    pub(crate) const SUSPENDING: &str = "suspending";
    pub(crate) const RESUMING: &str = "resuming";
    pub(crate) const RESCUING: &str = "rescuing";
    pub(crate) const UNRESCUING: &str = "unrescuing";
    pub(crate) const REBUILDING: &str = "rebuilding";
    pub(crate) const RESIZE_PREP: &str = "resize_prep";
    pub(crate) const RESIZE_REVERTING: &str = "resize_reverting";
    pub(crate) const IMAGE_SNAPSHOT: &str = "image_snapshot";
    pub(crate) const IMAGE_BACKUP: &str = "image_backup";
    pub(crate) const SHELVING: &str = "shelving";
    pub(crate) const SHELVING_UPLOADING: &str = "shelving_image_uploading";
    pub(crate) const OFFLOADING: &str = "shelving_offloading";
    pub(crate) const UNSHELVING: &str = "unshelving";
    pub(crate) const DELETING: &str = "deleting";
}

/// `OS-EXT-STS:power_state`.
pub(crate) mod power {
    pub(crate) const RUNNING: i64 = 1;
    pub(crate) const PAUSED: i64 = 3;
    pub(crate) const SHUTDOWN: i64 = 4;
    pub(crate) const CRASHED: i64 = 6;
    pub(crate) const SUSPENDED: i64 = 7;
}

/// A task and the status that it shows.
type ByTask = &'static [(&'static str, &'static str)];

/// Each vm state with its status, and the tasks that show as another one.
const STATUSES: [(&str, &str, ByTask); 12] = [
    (
        vm::ACTIVE,
        "ACTIVE",
        &[
            (task::REBOOTING, "REBOOT"),
            (task::REBOOTING_HARD, "HARD_REBOOT"),
            (task::REBUILDING, "REBUILD"),
            (task::RESIZE_PREP, "RESIZE"),
        ],
    ),
    (vm::BUILDING, "BUILD", &[]),
    (vm::STOPPED, "SHUTOFF", &[(task::RESIZE_PREP, "RESIZE"), (task::REBUILDING, "REBUILD")]),
    (vm::RESIZED, "VERIFY_RESIZE", &[(task::RESIZE_REVERTING, "REVERT_RESIZE")]),
    (vm::PAUSED, "PAUSED", &[]),
    (vm::SUSPENDED, "SUSPENDED", &[]),
    (vm::RESCUED, "RESCUE", &[]),
    (vm::ERROR, "ERROR", &[(task::REBUILDING, "REBUILD")]),
    (vm::DELETED, "DELETED", &[]),
    (vm::SOFT_DELETED, "SOFT_DELETED", &[]),
    (vm::SHELVED, "SHELVED", &[]),
    (vm::OFFLOADED, "SHELVED_OFFLOADED", &[]),
];

/// `status` as users see it.
pub(crate) fn status(vm_state: &str, task_state: Option<&str>) -> &'static str {
    let Some((_, default, tasks)) = STATUSES.iter().find(|(v, _, _)| *v == vm_state) else { return "UNKNOWN" };
    tasks.iter().find(|(t, _)| Some(*t) == task_state).map_or(default, |(_, s)| s)
}

/// Is it a status that a server can have?
pub(crate) fn is_status(text: &str) -> bool {
    STATUSES.iter().any(|(_, s, tasks)| s.eq_ignore_ascii_case(text) || tasks.iter().any(|(_, s)| s.eq_ignore_ascii_case(text)))
}

/// What an action needs. `None` leaves it open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) vm: Option<&'static [&'static str]>,
    /// Tasks besides none.
    pub(crate) tasks: Option<&'static [&'static str]>,
    /// It must have run once.
    pub(crate) launched: bool,
}

impl Needs {
    /// One of these vm states, no task under way, launched before.
    pub(crate) const fn vm(states: &'static [&'static str]) -> Self {
        Self { vm: Some(states), tasks: Some(&[]), launched: true }
    }

    pub(crate) const fn or_tasks(mut self, tasks: &'static [&'static str]) -> Self {
        self.tasks = Some(tasks);
        self
    }
    pub(crate) const fn any_task(mut self) -> Self {
        self.tasks = None;
        self
    }

    /// 409 in Nova's words when the server is not so.
    pub(crate) fn check(&self, server: &Object<Server>, action: &str) -> Result<()> {
        let no = |attr: &str, state: &str| {
            Err(Error::conflict(format!("Cannot '{action}' instance {} while it is in {attr} {state}", server.id)))
        };
        if self.vm.is_some_and(|states| !states.contains(&server.vm_state.as_str())) {
            return no("vm_state", &server.vm_state);
        }
        let task = server.task_state.as_deref();
        if let (Some(tasks), Some(task)) = (self.tasks, task)
            && !tasks.contains(&task)
        {
            return no("task_state", task);
        }
        if self.launched && server.launched_at.is_none() {
            return no("launched_at", "None");
        }
        Ok(())
    }
}

/// 409 when the server is locked and the caller is no administrator.
pub(crate) fn check_unlocked(server: &Object<Server>, cx: &api::Cx) -> Result<()> {
    if server.is_locked() && !cx.is_admin() {
        return Err(Error::conflict(format!("Instance {} is locked", server.id)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_nova() {
        for (v, t, want) in [
            ("active", None, "ACTIVE"),
            ("active", Some("rebooting_hard"), "HARD_REBOOT"),
            ("active", Some("deleting"), "ACTIVE"),
            ("stopped", Some("resize_prep"), "RESIZE"),
            ("error", Some("rebuilding"), "REBUILD"),
            ("resized", None, "VERIFY_RESIZE"),
            ("resized", Some("resize_reverting"), "REVERT_RESIZE"),
            ("shelved_offloaded", Some("spawning"), "SHELVED_OFFLOADED"),
            ("what", None, "UNKNOWN"),
        ] {
            assert_eq!(status(v, t), want, "{v} {t:?}");
        }
        assert!(is_status("active") && is_status("REVERT_RESIZE") && !is_status("BLUE"));
    }

    #[test]
    fn conflicts_say_what_stands_against_it() {
        let body = Server { vm_state: "paused".into(), launched_at: Some(1), ..Server::default() };
        let mut server = Object::new("7f", Some("p"), body, base::Timestamp(1), "req");
        let e = Needs::vm(&[vm::ACTIVE]).check(&server, "pause").expect_err("it is paused");
        assert_eq!(e.message, "Cannot 'pause' instance 7f while it is in vm_state paused");
        server.vm_state = "active".into();
        server.task_state = Some("rebooting".into());
        let e = Needs::vm(&[vm::ACTIVE]).check(&server, "pause").expect_err("it reboots");
        assert_eq!(e.message, "Cannot 'pause' instance 7f while it is in task_state rebooting");
        assert!(Needs::vm(&[vm::ACTIVE]).or_tasks(&["rebooting"]).check(&server, "reboot").is_ok());
        server.launched_at = None;
        assert!(Needs::vm(&[vm::ACTIVE]).any_task().check(&server, "stop").is_err());
    }
}
