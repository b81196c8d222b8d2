//! `POST /servers/{id}/action`: one table of what may be asked, at which version, by whom, in which form.
mod addresses;
mod admin;
mod console;
mod image;
mod power;
mod rebuild;
mod rescue;
mod resize;
mod shelve;

use crate::{
    common::visible,
    resources::Server,
    server::{
        change, records,
        state::{self, Needs},
    },
    shape::Shape,
};
use api::{Call, Cx, Error, Map, Reply, Result};
use resource::Object;
use serde_json::Value;
use std::pin::Pin;
use store::Tx;

pub(crate) use console::{remote_console, token, vnc};
pub(crate) use image::{fill, rotate};

type Running = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// One action.
pub(crate) struct Action {
    name: &'static str,
    /// Name and default text of its rule.
    rule: (&'static str, &'static str),
    since: u16,
    until: u16,
    /// Of the value below the action's name.
    body: &'static Shape,
    run: fn(Call, Object<Server>, Value) -> Running,
}

const fn action(
    name: &'static str,
    rule: &'static str,
    text: &'static str,
    body: &'static Shape,
    run: fn(Call, Object<Server>, Value) -> Running,
) -> Action {
    Action { name, rule: (rule, text), since: 0, until: u16::MAX, body, run }
}
impl Action {
    const fn since(mut self, minor: u16) -> Self {
        self.since = minor;
        self
    }
    const fn until(mut self, minor: u16) -> Self {
        self.until = minor;
        self
    }
}

static ACTIONS: [Action; 42] = [
    action("reboot", "os_compute_api:servers:reboot", "member", &power::REBOOT, |c, s, b| Box::pin(power::reboot(c, s, b))),
    action("os-start", "os_compute_api:servers:start", "member", &Shape::Any, |c, s, _| Box::pin(power::start(c, s))),
    action("os-stop", "os_compute_api:servers:stop", "member", &Shape::Any, |c, s, _| Box::pin(power::stop(c, s))),
    action("pause", "os_compute_api:os-pause-server:pause", "member", &Shape::Any, |c, s, _| Box::pin(power::pause(c, s))),
    action("unpause", "os_compute_api:os-pause-server:unpause", "member", &Shape::Any, |c, s, _| Box::pin(power::unpause(c, s))),
    action("suspend", "os_compute_api:os-suspend-server:suspend", "member", &Shape::Any, |c, s, _| {
        Box::pin(power::suspend(c, s))
    }),
    action("resume", "os_compute_api:os-suspend-server:resume", "member", &Shape::Any, |c, s, _| Box::pin(power::resume(c, s))),
    action("lock", "os_compute_api:os-lock-server:lock", "member", &power::LOCK, |c, s, b| Box::pin(power::lock(c, s, b))),
    action("unlock", "os_compute_api:os-lock-server:unlock", "member", &Shape::Any, |c, s, _| Box::pin(power::unlock(c, s))),
    action("trigger_crash_dump", "os_compute_api:servers:trigger_crash_dump", "member", &Shape::Null, |c, s, _| {
        Box::pin(power::crash_dump(c, s))
    })
    .since(17),
    action("changePassword", "os_compute_api:os-admin-password", "member", &power::CHANGE_PASSWORD, |c, s, _| {
        Box::pin(power::change_password(c, s))
    }),
    action("rebuild", "os_compute_api:servers:rebuild", "member", &rebuild::REBUILD, |c, s, b| {
        Box::pin(rebuild::rebuild(c, s, b))
    }),
    action("resize", "os_compute_api:servers:resize", "member", &resize::RESIZE, |c, s, b| Box::pin(resize::resize(c, s, b))),
    action("confirmResize", "os_compute_api:servers:confirm_resize", "member", &Shape::Any, |c, s, _| {
        Box::pin(resize::confirm(c, s))
    }),
    action("revertResize", "os_compute_api:servers:revert_resize", "member", &Shape::Any, |c, s, _| {
        Box::pin(resize::revert(c, s))
    }),
    action("rescue", "os_compute_api:os-rescue", "member", &rescue::RESCUE, |c, s, b| Box::pin(rescue::rescue(c, s, b))),
    action("unrescue", "os_compute_api:os-unrescue", "member", &Shape::Any, |c, s, _| Box::pin(rescue::unrescue(c, s))),
    action("createImage", "os_compute_api:servers:create_image", "member", &image::CREATE_IMAGE, |c, s, b| {
        Box::pin(image::create(c, s, b))
    }),
    action("createBackup", "os_compute_api:os-create-backup", "member", &image::CREATE_BACKUP, |c, s, b| {
        Box::pin(image::backup(c, s, b))
    }),
    action("shelve", "os_compute_api:os-shelve:shelve", "member", &Shape::Any, |c, s, _| Box::pin(shelve::shelve(c, s))),
    action("shelveOffload", "os_compute_api:os-shelve:shelve_offload", "admin", &Shape::Any, |c, s, _| {
        Box::pin(shelve::offload(c, s))
    }),
    action("unshelve", "os_compute_api:os-shelve:unshelve", "member", &shelve::UNSHELVE, |c, s, b| {
        Box::pin(shelve::unshelve(c, s, b))
    }),
    action("addSecurityGroup", "os_compute_api:os-security-groups:add", "member", &addresses::GROUP, |c, s, b| {
        Box::pin(addresses::add_group(c, s, b))
    }),
    action("removeSecurityGroup", "os_compute_api:os-security-groups:remove", "member", &addresses::GROUP, |c, s, b| {
        Box::pin(addresses::remove_group(c, s, b))
    }),
    action("addFloatingIp", "os_compute_api:os-floating-ips:add", "member", &addresses::ADD_FLOATING, |c, s, b| {
        Box::pin(addresses::add_floating(c, s, b))
    })
    .until(43),
    action("removeFloatingIp", "os_compute_api:os-floating-ips:remove", "member", &addresses::REMOVE_FLOATING, |c, s, b| {
        Box::pin(addresses::remove_floating(c, s, b))
    })
    .until(43),
    action("addFixedIp", "os_compute_api:os-multinic:add", "member", &addresses::ADD_FIXED, |c, s, b| {
        Box::pin(addresses::add_fixed(c, s, b))
    })
    .until(43),
    action("removeFixedIp", "os_compute_api:os-multinic:remove", "member", &addresses::REMOVE_FIXED, |c, s, b| {
        Box::pin(addresses::remove_fixed(c, s, b))
    })
    .until(43),
    action("os-getConsoleOutput", "os_compute_api:os-console-output", "member", &console::OUTPUT, |c, s, b| {
        Box::pin(console::output(c, s, b))
    }),
    action("os-getVNCConsole", "os_compute_api:os-remote-consoles", "member", &console::GET_VNC, |c, s, b| {
        Box::pin(console::legacy(c, s, b))
    })
    .until(5),
    action("os-getSPICEConsole", "os_compute_api:os-remote-consoles", "member", &console::GET_OTHER, |c, s, b| {
        Box::pin(console::legacy(c, s, b))
    })
    .until(5),
    action("os-getRDPConsole", "os_compute_api:os-remote-consoles", "member", &console::GET_OTHER, |c, s, b| {
        Box::pin(console::legacy(c, s, b))
    })
    .until(5),
    action("os-getSerialConsole", "os_compute_api:os-remote-consoles", "member", &console::GET_OTHER, |c, s, b| {
        Box::pin(console::legacy(c, s, b))
    })
    .until(5),
    action("os-getMKSConsole", "os_compute_api:os-remote-consoles", "member", &console::GET_OTHER, |c, s, b| {
        Box::pin(console::legacy(c, s, b))
    })
    .until(5),
    action("os-resetState", "os_compute_api:os-admin-actions:reset_state", "admin", &admin::RESET_STATE, |c, s, b| {
        Box::pin(admin::reset_state(c, s, b))
    }),
    action("resetNetwork", "os_compute_api:os-admin-actions:reset_network", "admin", &Shape::Any, |c, s, _| {
        Box::pin(admin::nothing(c, s))
    }),
    action("injectNetworkInfo", "os_compute_api:os-admin-actions:inject_network_info", "admin", &Shape::Any, |c, s, _| {
        Box::pin(admin::nothing(c, s))
    }),
    action("forceDelete", "os_compute_api:os-deferred-delete:force", "member", &Shape::Any, |c, s, _| {
        Box::pin(admin::force_delete(c, s))
    }),
    action("restore", "os_compute_api:os-deferred-delete:restore", "member", &Shape::Any, |c, s, _| {
        Box::pin(admin::restore(c, s))
    }),
    action("evacuate", "os_compute_api:os-evacuate", "admin", &admin::EVACUATE, |c, s, b| Box::pin(admin::evacuate(c, s, b))),
    action("migrate", "os_compute_api:os-migrate-server:migrate", "admin", &admin::MIGRATE, |c, s, b| {
        Box::pin(admin::migrate(c, s, b))
    }),
    action("os-migrateLive", "os_compute_api:os-migrate-server:migrate_live", "admin", &Shape::Open(&[]), |c, s, _| {
        Box::pin(admin::migrate_live(c, s))
    }),
];

/// Rules of all actions.
pub(crate) fn rules() -> Vec<(&'static str, &'static str)> {
    ACTIONS.iter().map(|a| a.rule).collect()
}

pub(crate) async fn act(call: Call) -> Result<Reply> {
    let body: &Map = call.object()?;
    let unknown = |name: &str| Error::bad_request(format!("There is no such action: {name}"));
    let minor = call.cx.version.1;
    let mut names = body.keys();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(Error::bad_request("Malformed request body: it must hold one action."));
    };
    let found = ACTIONS.iter().find(|a| a.name == name && (a.since..=a.until).contains(&minor)).ok_or_else(|| unknown(name))?;
    let value = body.get(name).cloned().unwrap_or(Value::Null);
    found.body.check(&value, &call.cx).map_err(|e| named(e, name))?;
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require(found.rule.0, Some(&server.map))?;
    (found.run)(call, server, value).await
}

/// Where a body is wrong at its top, Nova names the action.
fn named(mut e: Error, action: &str) -> Error {
    if !e.message.starts_with("Invalid input") {
        e.message = format!("Invalid input for field/attribute {action}. {}", e.message);
    }
    e
}

/// What most actions are: a check of the state, a change of the row, an entry in the list of actions.
pub(crate) struct Wish {
    /// Nova's name of the method, for messages.
    pub(crate) method: &'static str,
    /// Name in the list of actions, and of its event; an action without an event is done at once.
    pub(crate) action: &'static str,
    pub(crate) event: &'static str,
    pub(crate) needs: Needs,
    /// Task that goes on until a node reports; empty without one.
    pub(crate) task: &'static str,
}

/// Carries out a wish; gives the row as it then is.
pub(crate) async fn wish<F>(call: &Call, server: &Object<Server>, wish: Wish, mut how: F) -> Result<Map>
where
    F: FnMut(&Cx, &mut Tx<'_>, &mut Object<Server>) -> Result<()> + Send + 'static,
{
    let (row, ()) = change(call, &server.id, move |cx, tx, server| {
        state::check_unlocked(server, cx)?;
        wish.needs.check(server, wish.method)?;
        records::start_action(tx, cx, server, wish.action, wish.event);
        how(cx, tx, server)?;
        if wish.task.is_empty() {
            records::finish_action(tx, &mut server.body, None);
        } else {
            server.intent += 1;
            records::begin(&mut server.body, cx, wish.task, tx.now);
        }
        let text = format!("User {} asked for {}", cx.caller.user_id(), wish.action);
        resource::engine::tell(tx, &server.id, &cx.request_id, &text);
        Ok(())
    })
    .await?;
    Ok(row)
}
