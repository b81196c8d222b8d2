//! The commands that only ask: status, why, node list, task list, token.
use crate::{Client, Error, print_json, print_table};
use base::Timestamp;
use clap::Subcommand;
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show what the cloud holds and whether anything is in trouble.
    Status,
    /// Tell the story of a resource: who asked, what was done, what failed, what comes next.
    #[command(after_help = "Example: drover why server demo")]
    Why {
        /// Kind of resource: server, network, port, router, image, …
        kind: String,
        /// Its name or id.
        id: String,
    },
    /// Hosts that run servers.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Processes that run the control plane.
    #[command(subcommand)]
    Controller(ControllerCommand),
    /// Work of the control plane: what runs, what failed last, what runs next.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Print a token, for use with curl.
    Token,
}

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// List the hosts.
    List,
}

#[derive(Subcommand, Debug)]
pub enum ControllerCommand {
    /// List those that live, and how many of the 64 shards of the work each holds.
    List,
}

#[derive(Subcommand, Debug)]
pub enum TaskCommand {
    /// List the tasks.
    List,
}

fn cell(v: &Value) -> String {
    match v {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        v => v.to_string(),
    }
}

fn time(v: &Value) -> String {
    v.as_i64().map_or_else(|| "-".into(), |t| Timestamp(t).seconds_z())
}

fn rows(list: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let row = |v: &Value| columns.iter().map(|c| if c.ends_with("_run") { time(&v[c]) } else { cell(&v[c]) }).collect();
    list.as_array().into_iter().flatten().map(row).collect()
}

/// Asks the cloud and prints the answer.
pub async fn run(command: &Command, client: &Client, json: bool) -> Result<(), Error> {
    match command {
        Command::Status => {
            let v = client.get("/operator/v1/status").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let mut table: Vec<Vec<String>> =
                v["resources"].as_object().into_iter().flatten().map(|(k, n)| vec![k.clone(), cell(n)]).collect();
            table.push(vec!["keys in trouble".into(), cell(&v["keys_in_trouble"])]);
            table.push(vec!["store revision".into(), cell(&v["revision"])]);
            print_table(&["RESOURCE", "COUNT"], &table);
        }
        Command::Why { kind, id } => {
            let v = client.get(&format!("/operator/v1/why/{kind}/{id}")).await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let story = |e: &Value| vec![time(&e["at"]), cell(&e["request_id"]), cell(&e["text"])];
            let mut table: Vec<Vec<String>> = v["entries"].as_array().into_iter().flatten().map(story).collect();
            let next = |n: &Value| {
                vec![
                    time(&n["next_run"]),
                    "next".into(),
                    format!("{} runs again after: {}", cell(&n["task"]), cell(&n["last_error"])),
                ]
            };
            table.extend(v["next"].as_array().into_iter().flatten().map(next));
            print_table(&["WHEN", "REQUEST", "WHAT"], &table);
        }
        Command::Node(NodeCommand::List) => {
            let v = client.get("/operator/v1/nodes").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let columns = ["host", "state", "hypervisor_type", "accelerator", "vcpus", "memory_mib", "disk_gib"];
            print_table(&["HOST", "STATE", "TYPE", "ACCEL", "VCPUS", "MEMORY_MIB", "DISK_GIB"], &rows(&v["nodes"], &columns));
        }
        Command::Controller(ControllerCommand::List) => {
            let v = client.get("/operator/v1/shards").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let member = |m: &Value| vec![cell(&m["name"]), cell(&m["id"]), time(&m["since"]), cell(&m["shards"])];
            let table: Vec<Vec<String>> = v["members"].as_array().into_iter().flatten().map(member).collect();
            print_table(&["CONTROLLER", "ID", "SINCE", "SHARDS"], &table);
        }
        Command::Task(TaskCommand::List) => {
            let v = client.get("/operator/v1/tasks").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let columns = ["name", "state", "runs", "failures", "last_run", "next_run", "last_error"];
            print_table(
                &["TASK", "STATE", "RUNS", "FAILURES", "LAST_RUN", "NEXT_RUN", "LAST_ERROR"],
                &rows(&v["tasks"], &columns),
            );
        }
        Command::Token => {
            if json {
                print_json(&serde_json::json!({ "token": client.token() }));
            } else {
                print_table(&[client.token()], &[]);
            }
        }
    }
    Ok(())
}
