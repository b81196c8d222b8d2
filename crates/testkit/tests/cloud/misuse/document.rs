//! The OpenAPI documents: they name every route, and every reference in them leads somewhere.
use crate::bed::Bed;
use serde_json::Value;

fn references<'v>(v: &'v Value, out: &mut Vec<&'v str>) {
    match v {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

#[tokio::test]
async fn every_route_is_in_its_document() {
    let bed = Bed::start(0).await;
    let mut wrong = Vec::new();
    for service in ["image", "network", "placement", "compute", "volume"] {
        let document = bed.member.get(&format!("/operator/v1/openapi/{service}")).await.expect(200).body;
        let prefix = format!("/{service}");
        for route in bed.cloud.routes.iter().filter(|r| r.path.starts_with(&prefix)) {
            let path = route.path.strip_prefix(&prefix).unwrap_or_default();
            let operation = &document["paths"][path][route.method.to_ascii_lowercase()];
            if !["401", "4XX", "503"].iter().all(|status| operation["responses"][status].is_object()) {
                wrong.push(format!("{} {} of {service} lacks its answers", route.method, route.path));
            }
            let refers = |name: &str| operation["parameters"].to_string().contains(&format!("#/components/parameters/{name}\""));
            // A body that is read as it comes has no deadline, and cannot be compared with an earlier one.
            let streams = !refers("Prefer");
            if (route.method == "POST" && !streams && operation["security"].is_null()) != refers("IdempotencyKey") {
                wrong.push(format!("{} {} of {service} and keys", route.method, route.path));
            }
        }
        let mut all = Vec::new();
        references(&document, &mut all);
        let lost = |r: &&&str| r.strip_prefix('#').and_then(|pointer| document.pointer(pointer)).is_none();
        wrong.extend(all.iter().filter(lost).map(|r| format!("{r} is not in the document of {service}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
