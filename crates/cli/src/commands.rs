//! The commands that only ask: status, why, node list, task list, token.
use crate::{
    Client, Error,
    policy::{self, PolicyCommand},
    print_json, print_table,
};
use base::Timestamp;
use clap::{Args, Subcommand};
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
    /// Hosts that run servers; the program's own command `node` leads here.
    #[command(skip)]
    Node(NodeCommand),
    /// Processes that run the control plane.
    #[command(subcommand)]
    Controller(ControllerCommand),
    /// What machines join the cluster with; each is good once.
    #[command(
        subcommand,
        after_help = "Example: drover join-token controller; on the new machine: drover server --name c2 --address 10.0.0.2 --join TOKEN"
    )]
    JoinToken(JoinTokenCommand),
    /// Work of the control plane: what runs, what failed last, what runs next.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Who may do what: the rules in force, an own file above them, and why somebody may or may not.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The keys that tokens are signed with, of all controllers.
    #[command(subcommand)]
    TokenKeys(KeysCommand),
    /// Print a token, for use with curl.
    Token,
}

#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// How many there are, and when they were last rotated.
    Show,
    /// Let the next key sign. Tokens of before stay good until they end.
    Rotate,
}

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// List the hosts.
    List,
}

#[derive(Subcommand, Debug)]
pub enum ControllerCommand {
    /// List them, and how many of the 64 shards of the work each holds.
    List,
    /// Take one out that is stopped and does not come back, so that another can take its place.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum JoinTokenCommand {
    /// Make one for a host.
    Node(NewToken),
    /// Make one for a controller. It opens the whole cloud: hand it over as you would a key.
    Controller(NewToken),
    /// List those that are there, without their secrets.
    List,
    /// Make one worthless.
    Delete {
        /// Its id, as the list tells it.
        id: String,
    },
}

#[derive(Args, Debug)]
pub struct NewToken {
    /// For so long it can be used.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    ttl: u64,
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
        Command::Controller(command) => controllers(command, client, json).await?,
        Command::JoinToken(command) => join_tokens(command, client, json).await?,
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
        Command::TokenKeys(command) => {
            let path = "/operator/v1/token-keys";
            let v = match command {
                KeysCommand::Show => client.get(path).await?,
                KeysCommand::Rotate => client.post(path, serde_json::json!({})).await?,
            };
            if json {
                print_json(&v);
            } else {
                print_table(&["KEYS", "ROTATED"], &[vec![cell(&v["token_keys"]["count"]), time(&v["token_keys"]["rotated_at"])]]);
            }
        }
        Command::Policy(command) => policy::run(command, client, json).await?,
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

async fn controllers(command: &ControllerCommand, client: &Client, json: bool) -> Result<(), Error> {
    match command {
        ControllerCommand::List => {
            let v = client.get("/operator/v1/controllers").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let one = |m: &Value| {
                let mut row = vec![cell(&m["name"]), cell(&m["state"]), cell(&m["id"]), time(&m["since"]), cell(&m["shards"])];
                row.extend([cell(&m["line"]), cell(&m["store_address"]), cell(&m["store"])]);
                row
            };
            let table: Vec<Vec<String>> = v["controllers"].as_array().into_iter().flatten().map(one).collect();
            print_table(&["CONTROLLER", "STATE", "ID", "SINCE", "SHARDS", "LINE", "ETCD", "SEAT"], &table);
        }
        ControllerCommand::Remove { name } => {
            client.delete(&format!("/operator/v1/controllers/{name}")).await?;
        }
    }
    Ok(())
}

async fn join_tokens(command: &JoinTokenCommand, client: &Client, json: bool) -> Result<(), Error> {
    let make = |role: &'static str, new: &NewToken| (role, new.ttl);
    let (role, ttl) = match command {
        JoinTokenCommand::Node(new) => make("node", new),
        JoinTokenCommand::Controller(new) => make("controller", new),
        JoinTokenCommand::List => {
            let v = client.get("/operator/v1/join-tokens").await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let one = |t: &Value| {
                vec![cell(&t["id"]), cell(&t["role"]), cell(&t["state"]), time(&t["expires_at"]), cell(&t["used_by"])]
            };
            let table: Vec<Vec<String>> = v["join_tokens"].as_array().into_iter().flatten().map(one).collect();
            print_table(&["ID", "ROLE", "STATE", "EXPIRES", "USED_BY"], &table);
            return Ok(());
        }
        JoinTokenCommand::Delete { id } => {
            client.delete(&format!("/operator/v1/join-tokens/{id}")).await?;
            return Ok(());
        }
    };
    let body = serde_json::json!({ "join_token": { "role": role, "ttl": ttl } });
    let v = client.post("/operator/v1/join-tokens", body).await?;
    if json {
        print_json(&v);
    } else {
        print_table(&[&cell(&v["join_token"]["token"])], &[]);
    }
    Ok(())
}
