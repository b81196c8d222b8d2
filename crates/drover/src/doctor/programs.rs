//! The programs that this role calls: there, and new enough.
use super::{Finding, Look, PATIENCE, Role, error, ok};
use tokio::time::timeout;

/// A program, the Debian package that has it, how to ask for its version, and the oldest that will do.
struct Program {
    name: &'static str,
    package: &'static str,
    ask: &'static [&'static str],
    least: (u64, u64),
}

const fn program(name: &'static str, package: &'static str, ask: &'static [&'static str], least: (u64, u64)) -> Program {
    Program { name, package, ask, least }
}

const GUESTS: &[Program] = &[
    program("qemu-system-x86_64", "qemu-system-x86", &["--version"], (6, 0)),
    program("qemu-img", "qemu-utils", &["--version"], (6, 0)),
    program("qemu-storage-daemon", "qemu-system-common", &["--version"], (6, 0)),
    program("genisoimage", "genisoimage", &[], (0, 0)),
    program("ovs-vswitchd", "openvswitch-switch", &["--version"], (2, 15)),
    program("ovn-controller", "ovn-host", &["--version"], (21, 0)),
    program("nft", "nftables", &["--version"], (0, 9)),
    program("conntrack", "conntrack", &[], (0, 0)),
    program("ethtool", "ethtool", &[], (0, 0)),
];
const NORTH: &[Program] = &[program("ovn-northd", "ovn-central", &["--version"], (21, 0))];
const DOOR: &[Program] =
    &[program("haproxy", "haproxy", &["-v"], (2, 4)), program("keepalived", "keepalived", &["--version"], (2, 0))];
const ETCD: &[Program] = &[
    program("etcd", "etcd-server", &["--version"], (3, 4)),
    // For backups and restores.
    program("etcdctl", "etcd-client", &["version"], (3, 4)),
];
const ALL: &[Program] = &[program("ip", "iproute2", &[], (0, 0)), program("ssh-keygen", "openssh-client", &[], (0, 0))];

pub(super) async fn look(look: &Look<'_>) -> Vec<Finding> {
    let own_etcd = look.config.controller.as_ref().is_some_and(|c| c.etcd != crate::controller::Seat::External);
    let mut wanted: Vec<&Program> = ALL.iter().collect();
    if look.role.runs_guests(look.config) {
        wanted.extend(GUESTS);
        wanted.extend(NORTH.iter().filter(|_| look.role != Role::Node));
    }
    if look.role == Role::Controller {
        wanted.extend(DOOR);
        wanted.extend(ETCD.iter().filter(|_| own_etcd));
    }
    let (mut all, mut good) = (Vec::new(), Vec::new());
    for program in wanted {
        match tried(program).await {
            Ok(version) => good.push(version),
            Err(finding) => all.push(finding),
        }
    }
    all.push(ok("programs", good.join(", ")));
    all
}

async fn tried(program: &Program) -> Result<String, Finding> {
    let Program { name, package, ask, least } = program;
    let install = format!("Install it: apt-get install {package}");
    if !is_there(name) {
        return Err(error("programs", format!("{name} is not installed"), install));
    }
    if ask.is_empty() {
        return Ok((*name).to_owned());
    }
    let asked = tokio::process::Command::new(name).args(*ask).env("ETCDCTL_API", "3").kill_on_drop(true).output();
    let text = match timeout(PATIENCE, asked).await {
        Ok(Ok(out)) => String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
        Ok(Err(e)) => return Err(error("programs", format!("{name} cannot be run: {e}"), install)),
        Err(_) => {
            return Err(error(
                "programs",
                format!("{name} does not tell its version and hangs"),
                "Look at the disk that it is on.",
            ));
        }
    };
    let version = version(&text).ok_or_else(|| error("programs", format!("{name} tells no version"), install))?;
    match version >= *least {
        true => Ok(format!("{name} {}.{}", version.0, version.1)),
        false => Err(error(
            "programs",
            format!("{name} is {}.{}, and {}.{} is the oldest that Drover can use", version.0, version.1, least.0, least.1),
            format!("Upgrade the package {package}."),
        )),
    }
}

fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|dir| dir.join(name).is_file())
}

/// The first thing in a program's words that is a version.
fn version(text: &str) -> Option<(u64, u64)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut numbers = word.split('.').map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, wanted) in [
            ("etcd Version: 3.4.23\nGit SHA: Not provided\nGo Version: go1.19.6\n", (3, 4)),
            ("HAProxy version 2.6.12-1+deb12u2 2025/04/18 - https://haproxy.org/", (2, 6)),
            ("Keepalived v2.2.7 (01/16,2022)", (2, 2)),
            ("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u13)", (7, 2)),
            ("nftables v1.0.6 (Lester Gooch #5)", (1, 0)),
        ] {
            assert_eq!(version(text), Some(wanted), "{text}");
        }
        assert_eq!(version("no such option"), None);
    }

    #[tokio::test]
    async fn what_is_not_installed_or_too_old_is_an_error_that_names_the_package() {
        let none = program("no-such-program", "some-package", &[], (0, 0));
        assert!(tried(&none).await.unwrap_err().advice.unwrap().contains("some-package"));
        let old = program("ip", "iproute2", &["-V"], (99, 0));
        assert!(tried(&old).await.unwrap_err().found.contains("99.0"));
    }
}
