//! `drover policy`: which rules are in force, an own file above them, and why somebody may or may not.
use crate::{Client, Error, print_json, print_table};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const PATH: &str = "/operator/v1/policy";

#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// List the rules in force.
    List {
        /// Only names with this in them.
        part: Option<String>,
        /// Only those that differ from the defaults.
        #[arg(long)]
        overridden: bool,
    },
    /// Explain whether somebody may do something, part by part. Exit code 1: they may not.
    #[command(
        after_help = "Example: drover policy check os_compute_api:servers:delete --user demo --project demo --target project_id=OTHER"
    )]
    Check(Question),
    /// Print the file that is loaded.
    Show,
    /// Load a policy file (YAML or JSON, as oslo.policy has it) for the whole cloud, in place of the one before.
    Load {
        /// The file.
        file: PathBuf,
        /// Only check it.
        #[arg(long)]
        check: bool,
    },
    /// Go back to the defaults.
    Reset,
}

#[derive(Args, Debug)]
pub struct Question {
    /// Name of the rule, as `policy list` has it.
    action: String,
    /// Who; a name or an id.
    #[arg(long)]
    user: String,
    /// Domain of a user that is named [default: default].
    #[arg(long)]
    user_domain: Option<String>,
    /// With a token of this project; a name or an id.
    #[arg(long, conflicts_with_all = ["domain", "system"])]
    project: Option<String>,
    /// Domain of a project that is named [default: default].
    #[arg(long, requires = "project")]
    project_domain: Option<String>,
    /// With a token of this domain; a name or an id.
    #[arg(long, conflicts_with = "system")]
    domain: Option<String>,
    /// With a token of the system.
    #[arg(long)]
    system: bool,
    /// What it is done to, `key=value`; without any, something of their own.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    target: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn yes(v: &Value) -> &'static str {
    if v == &Value::Bool(true) { "yes" } else { "no" }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

pub(crate) async fn run(command: &PolicyCommand, client: &Client, json: bool) -> Result<(), Error> {
    match command {
        PolicyCommand::List { part, overridden } => {
            let mut v = client.get(PATH).await?;
            let wanted = |r: &Value| {
                part.as_ref().is_none_or(|p| text(&r["name"]).contains(p.as_str())) && (!overridden || r["overridden"] == true)
            };
            let rules: Vec<Value> = items(&v["policy"]["rules"]).filter(|r| wanted(r)).cloned().collect();
            if json {
                v["policy"]["rules"] = rules.into();
                print_json(&v);
                return Ok(());
            }
            let table: Vec<Vec<String>> =
                rules.iter().map(|r| vec![text(&r["name"]), yes(&r["overridden"]).to_owned(), text(&r["rule"])]).collect();
            print_table(&["NAME", "OVERRIDDEN", "RULE"], &table);
        }
        PolicyCommand::Check(question) => check(question, client, json).await?,
        PolicyCommand::Show => {
            let v = client.get(PATH).await?;
            match (&v["policy"]["file"], json) {
                (_, true) => print_json(&v["policy"]["file"]),
                (Value::String(file), false) => print_table(&[file.trim_end()], &[]),
                _ => return Err(Error::Local("No policy file is loaded; the defaults are in force.".into())),
            }
        }
        PolicyCommand::Load { file, check } => {
            let unreadable = |e: std::io::Error| Error::Local(format!("{} cannot be read: {e}.", file.display()));
            let content = std::fs::read_to_string(file).map_err(unreadable)?;
            let v = client.put(PATH, json!({"policy": {"file": content, "dry_run": check}})).await?;
            if json {
                print_json(&v);
                return Ok(());
            }
            let unused = items(&v["policy"]["unused"]).map(|name| vec![text(name)]).collect::<Vec<_>>();
            if !unused.is_empty() {
                print_table(&["NO RULE OF DROVER HAS THIS NAME"], &unused);
            }
        }
        PolicyCommand::Reset => {
            client.delete(PATH).await?;
        }
    }
    Ok(())
}

async fn check(q: &Question, client: &Client, json: bool) -> Result<(), Error> {
    let mut decision = json!({
        "action": q.action, "user": q.user, "user_domain": q.user_domain, "project": q.project, "project_domain": q.project_domain,
        "domain": q.domain, "system": q.system,
    });
    if !q.target.is_empty() {
        decision["target"] = q.target.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect::<Map<String, Value>>().into();
    }
    let v = client.post("/operator/v1/policy/decisions", json!({ "decision": decision })).await?;
    let d = &v["decision"];
    if json {
        print_json(&v);
    } else {
        let mut table = Vec::new();
        lines(&d["why"], 0, &mut table);
        print_table(&["HOLDS", "CHECK", "BECAUSE"], &table);
    }
    if d["allowed"] == true {
        return Ok(());
    }
    let whose = if d["overridden"] == true { "the operator's" } else { "the default" };
    Err(Error::Local(format!("{} would be refused {}: {whose} rule is \"{}\".", q.user, q.action, text(&d["rule"]))))
}

/// The tree, a line each, parts below what they are parts of.
fn lines(part: &Value, depth: usize, table: &mut Vec<Vec<String>>) {
    table.push(vec![
        yes(&part["holds"]).to_owned(),
        format!("{}{}", "  ".repeat(depth), text(&part["check"])),
        text(&part["because"]),
    ]);
    items(&part["parts"]).for_each(|p| lines(p, depth + 1, table));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_told_from_the_top() {
        let leaf = |check: &str| json!({"check": check, "holds": true, "because": "b", "parts": []});
        let tree = json!({"check": "all of", "holds": false, "because": "", "parts": [leaf("x"), leaf("y")]});
        let mut table = Vec::new();
        lines(&tree, 0, &mut table);
        assert_eq!(table.iter().map(|r| r[1].as_str()).collect::<Vec<_>>(), ["all of", "  x", "  y"]);
        assert_eq!(table[0][0], "no");
        assert!(pair("a=b=c").is_ok_and(|p| p == ("a".into(), "b=c".into())) && pair("a").is_err());
    }
}
