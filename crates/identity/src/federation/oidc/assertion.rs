//! Claims as an assertion, under the names that mappings for Apache's module use, so that they need no change here.
use crate::federation::mapping::Assertion;
use resource::Map;
use serde_json::Value;

/// How deep objects in claims are looked into.
const DEEPEST: usize = 4;

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        // As the module says it.
        Value::Bool(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn add(out: &mut Assertion, name: &str, value: &Value, depth: usize) {
    if let Value::Object(map) = value {
        if depth < DEEPEST {
            map.iter().for_each(|(k, v)| add(out, &format!("{name}.{k}"), v, depth + 1));
        }
        return;
    }
    let values: Vec<String> = match value {
        Value::Array(list) => list.iter().filter_map(scalar).collect(),
        value => scalar(value).into_iter().collect(),
    };
    if !values.is_empty() {
        // Of claims whose names come to the same here the first counts: signed ones are before others.
        out.entry(format!("OIDC-{name}")).or_insert_with(|| values.clone());
        let upper: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        out.entry(format!("HTTP_OIDC_{upper}")).or_insert(values);
    }
}

/// A claim `c` is `OIDC-c` and `HTTP_OIDC_C`; parts of objects have dots. Lists stay lists, whatever their values hold.
pub(crate) fn of(claims: &Map) -> Assertion {
    let mut out = Assertion::new();
    claims.iter().for_each(|(name, value)| add(&mut out, name, value, 0));
    if let Some(user) = remote_user(claims) {
        out.insert("REMOTE_USER".to_owned(), vec![user]);
    }
    out
}

/// `sub@issuer`, as the module names users.
pub(crate) fn remote_user(claims: &Map) -> Option<String> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let issuer = text("iss")?;
    Some(format!("{}@{}", text("sub")?, issuer.trim_start_matches("https://").trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_have_the_names_that_mappings_use() {
        let claims = json!({
            "iss": "https://idp.example.org/", "sub": "7", "preferred_username": "ada;root", "groups": ["a", "b;c", {"x": 1}],
            "preferred-username": "root", "email_verified": true, "realm_access": {"roles": ["admin"]}, "nothing": null, "empty": [],
        });
        let assertion = of(claims.as_object().unwrap());
        let all = |name: &str| assertion.get(name).cloned().unwrap_or_default();
        assert_eq!(all("OIDC-preferred_username"), ["ada;root"], "a value is one value");
        assert_eq!(all("HTTP_OIDC_PREFERRED_USERNAME"), ["ada;root"], "the first of those whose names come to the same");
        assert_eq!(all("HTTP_OIDC_ISS"), ["https://idp.example.org/"]);
        assert_eq!(all("OIDC-groups"), ["a", "b;c"]);
        assert_eq!(all("OIDC-email_verified"), ["1"]);
        assert_eq!(all("OIDC-realm_access.roles"), ["admin"]);
        assert_eq!(all("HTTP_OIDC_REALM_ACCESS_ROLES"), ["admin"]);
        assert_eq!(all("REMOTE_USER"), ["7@idp.example.org"]);
        assert!(!assertion.contains_key("OIDC-nothing") && !assertion.contains_key("OIDC-empty"));
    }
}
