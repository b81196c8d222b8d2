//! One executable; roles are sub-commands.
#![expect(clippy::print_stderr, reason = "progress and errors of a command go to stderr")]
mod admission;
mod backup;
mod central;
mod config;
mod controller;
mod demo;
mod doctor;
mod door;
mod engine;
mod felt;
mod figures;
mod foreground;
mod host;
mod images;
mod line;
mod node_role;
mod real_node;
mod schema;
mod serve;
mod server;
mod sim;
mod up;
mod upkeep;

use clap::{Parser, Subcommand};
use config::{Config, Flags, State};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// An OpenStack-compatible cloud in one binary.
#[derive(Parser, Debug)]
#[command(
    name = "drover",
    version,
    after_help = "Start with: drover up. Then: export OS_CLIENT_CONFIG_FILE=/var/lib/drover/clouds.yaml OS_CLOUD=drover; openstack server list\nExit codes: 0 done, 1 refused or failed, 2 wrong usage."
)]
struct Arguments {
    /// Where the cloud lives.
    #[arg(long, env = "DROVER_STATE", default_value = "/var/lib/drover", value_name = "DIR", global = true)]
    state: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a cloud on this machine, or go on with the one that is there; returns when the server `demo` answers ssh.
    Up {
        #[command(flatten)]
        flags: Box<Flags>,
        /// Start the cloud only: no networks, images, flavors or server are made.
        #[arg(long)]
        bare: bool,
    },
    /// Start a controller of a cluster on this machine: the first one, one that joins, or the one that is there.
    #[command(
        after_help = "Example: drover server --name c1 --address 10.0.0.1 --vip 10.0.0.100/24\nThen, for each further one: drover join-token controller; and on its machine: drover server --name c2 --address 10.0.0.2 --join TOKEN@10.0.0.1:8775"
    )]
    Server {
        #[command(flatten)]
        flags: Box<server::ServerFlags>,
    },
    /// Make this machine a host of a cluster, or go on with the one that is here; `drover node list` lists them.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Example: on a controller, drover join-token node; then here: drover node --name n1 --join TOKEN@10.0.0.1:8775 --uplink eth1"
    )]
    Node {
        #[command(flatten)]
        flags: node_role::NodeFlags,
        #[command(subcommand)]
        ask: Option<cli::NodeCommand>,
    },
    /// Stop the cloud and its guests; the data stays.
    Down {
        /// Remove the cloud's data, too. It cannot be brought back.
        #[arg(long)]
        destroy: bool,
    },
    /// Run what is in the state directory in the foreground, for a service manager. SIGTERM ends the control plane's processes here; guests,
    /// etcd and the front door go on.
    Run,
    /// Start the control plane's processes of this machine anew, for example after an upgrade; guests, etcd and the front door go on.
    Restart,
    /// Look at this machine, at what runs on it and at its cluster, and say what to do about what is not right. Needs no running cloud.
    #[command(after_help = "Exit codes: 0 nothing to do, 1 warnings, 2 errors.")]
    Doctor,
    /// Save the control plane's data into one file, while it runs; `backup verify FILE` checks one. It holds secrets.
    #[command(
        args_conflicts_with_subcommands = true,
        arg_required_else_help = true,
        after_help = "Example: drover backup /backup/drover-$(date +%F).tar; drover backup verify /backup/drover-2026-11-23.tar\nImages' bytes and disks are not in it; docs/operations.md tells how to save them."
    )]
    Backup {
        /// The file to be written.
        file: Option<PathBuf>,
        /// Of this snapshot of etcd instead, as controllers keep some in `snapshots/`; for a cluster that does not start.
        #[arg(long, value_name = "SNAPSHOT", requires = "file")]
        snapshot: Option<PathBuf>,
        #[command(subcommand)]
        check: Option<BackupCommand>,
    },
    /// Make a cloud of a backup in a new state directory: a controller of a new cluster, or a cloud of one machine. Nothing is started.
    #[command(after_help = "Example: drover restore /backup/drover-2026-11-23.tar --address 10.0.0.1; drover up")]
    Restore {
        #[command(flatten)]
        flags: backup::RestoreFlags,
    },
    /// Print the options in force.
    DumpConfig,
    /// Where the cloud's rows are.
    #[command(subcommand)]
    Store(StoreCommand),
    /// A cluster in namespaces of this machine, to try faults on.
    #[command(subcommand)]
    Lab(lab::Command),
    #[command(flatten)]
    Ask(cli::Command),
    /// The process that serves; `up` starts it.
    #[command(hide = true)]
    Serve,
    /// The process that starts `serve` again when it ends; `up` starts it.
    #[command(hide = true)]
    Supervise,
}

#[derive(Subcommand, Debug)]
enum BackupCommand {
    /// Check every byte of a backup, and its store.
    Verify {
        /// The backup.
        file: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Move a cloud that is down into another store, whole and verified. Safe to repeat.
    #[command(after_help = "Example: drover down; drover store move etcd://10.0.0.1:2379; drover up")]
    Move {
        /// `sqlite`, or `etcd://HOST:PORT[,HOST:PORT …][/NAME]`, which must be empty.
        to: engine::Place,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("The runtime cannot be started: {e}.");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let state = State::new(arguments.state);
    match arguments.command {
        Command::Up { flags, bare } => up::up(&state, &flags, bare).await,
        Command::Server { flags } => server::server(&state, &flags).await,
        Command::Node { flags, ask: None } => node_role::node(&state, &flags).await,
        Command::Node { ask: Some(command), .. } => ask(&state, &cli::Command::Node(command), arguments.json).await,
        Command::Down { destroy } => up::down(&state, destroy).await,
        Command::Run => foreground::run(&state).await,
        Command::Restart => foreground::restart(&state).await,
        Command::Doctor => {
            let found = doctor::doctor(&state).await;
            if arguments.json {
                cli::print_json(&serde_json::json!({ "findings": found }));
            } else {
                cli::print_table(&["LEVEL", "CHECK", "FOUND"], &doctor::rows(&found));
            }
            match doctor::worst(&found) {
                doctor::Level::Ok => Ok(()),
                doctor::Level::Warning => std::process::exit(1),
                doctor::Level::Error => std::process::exit(2),
            }
        }
        Command::Backup { file: _, snapshot: _, check: Some(BackupCommand::Verify { file }) } => {
            told(&backup::verify(&file).await?, arguments.json)
        }
        Command::Backup { file: Some(file), snapshot, check: None } => {
            told(&backup::backup(&state, &file, snapshot.as_deref()).await?, arguments.json)
        }
        Command::Backup { file: None, .. } => Err("Name the file to be written: drover backup FILE".into()),
        Command::Restore { flags } => backup::restore(&state, &flags).await,
        Command::DumpConfig => {
            let config = Config::load(&state, &Flags::default())?;
            cli::print_json(&serde_json::to_value(config).map_err(|e| e.to_string())?);
            Ok(())
        }
        Command::Store(StoreCommand::Move { to }) => {
            if let Some(role) = up::running(&state)? {
                return Err(format!("The process {role} of the cloud runs; stop it with: drover down"));
            }
            let config = Config::load(&state, &Flags::default())?;
            eprintln!("{}", engine::migrate(&state, config, to).await?);
            Ok(())
        }
        Command::Lab(command) => try_out(&command, state.dir(), arguments.json).await,
        Command::Ask(command) => ask(&state, &command, arguments.json).await,
        Command::Serve => serve::serve(&state).await,
        Command::Supervise => up::supervise(&state).await,
    }
}

fn told(about: &backup::About, json: bool) -> Result<(), String> {
    if json {
        cli::print_json(&serde_json::to_value(about).map_err(|e| e.to_string())?);
    } else {
        cli::print_table(&["BACKUP", ""], &backup::describe(about));
    }
    Ok(())
}

async fn try_out(command: &lab::Command, state: &Path, json: bool) -> Result<(), String> {
    let drover = std::env::current_exe().map_err(|e| format!("The path of this program is not known: {e}."))?;
    match lab::run(command, state, &drover, &|text| eprintln!("{text}")).await.map_err(|e| base::chain(&e))? {
        lab::Answer::Nothing => Ok(()),
        lab::Answer::Status(hosts) if json => {
            cli::print_json(&serde_json::to_value(hosts).map_err(|e| e.to_string())?);
            Ok(())
        }
        lab::Answer::Status(hosts) => {
            let rows: Vec<_> = hosts.iter().map(lab::Status::row).collect();
            cli::print_table(&lab::Status::COLUMNS, &rows);
            Ok(())
        }
        lab::Answer::Ended(status) => std::process::exit(status.code().unwrap_or(1)),
    }
}

async fn ask(state: &State, command: &cli::Command, json: bool) -> Result<(), String> {
    let config = Config::load(state, &Flags::default())?;
    let client = cli::Client::login(&demo::login(&config, state, true)?).await.map_err(|e| e.to_string())?;
    cli::run(command, &client, json).await.map_err(|e| e.to_string())
}
